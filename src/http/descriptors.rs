//! The limit on open files, which is what a cap on connections really stands on.
//!
//! Owns nothing but two calls to the operating system. It never lowers a limit.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's soft limit on open files towards `wanted`, as far as the hard limit lets it,
/// and returns the limit that holds now (`u64::MAX` where there is none).
///
/// # Errors
/// What the operating system answers when it refuses a change within its own hard limit.
pub fn raise(wanted: u64) -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Both are `None` for "unlimited".
    let Some(now) = current else { return Ok(u64::MAX) };
    let goal = maximum.map_or(wanted, |most| wanted.min(most));
    if goal <= now {
        return Ok(now);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(goal), maximum })?;
    Ok(goal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let now = raise(0).unwrap();
        assert!(now > 0);
        let raised = raise(now.saturating_add(1)).unwrap();
        assert!(raised >= now);
        assert_eq!(raise(1).unwrap(), raised);
    }
}
