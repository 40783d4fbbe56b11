//! The e-mail address that a person signs in with: a name to be compared, nothing is ever sent to it from here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::PeopleError;

/// A login name: an e-mail address in lower case, so that one person cannot be two.
///
/// Visible ASCII alone: no two names may look alike. Whether mail arrives there is not asked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Email(Box<str>);

impl Email {
    /// Characters of the longest address that mail can be sent to (RFC 5321, section 4.5.3.1.3, less the brackets).
    const LONGEST: usize = 254;

    /// The address, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = PeopleError;

    fn from_str(text: &str) -> Result<Self, PeopleError> {
        let is_address = text.len() <= Self::LONGEST
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && text
                .split_once('@')
                .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
        is_address.then(|| Self(text.to_ascii_lowercase().into())).ok_or(PeopleError::Email)
    }
}

impl TryFrom<String> for Email {
    type Error = PeopleError;

    fn try_from(text: String) -> Result<Self, PeopleError> {
        text.parse()
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0.into()
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_a_name_in_lower_case() {
        for (text, name) in
            [("a@b", "a@b"), ("Ada@Example.COM", "ada@example.com"), ("ada+keys@example.com", "ada+keys@example.com")]
        {
            assert_eq!(text.parse::<Email>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_no_login_name_is_refused() {
        let long = format!("{}@example.com", "a".repeat(243));
        for text in
            ["", "@", "a@", "@b", "ab", "a@b@c", "a b@c", " a@b", "a@b\n", "a\u{200b}@b", "аda@example.com", &long]
        {
            assert_eq!(text.parse::<Email>(), Err(PeopleError::Email), "{text:?}");
        }
        assert!(long[1..].parse::<Email>().is_ok());
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_itself(text in "\\PC{0,20}@?\\PC{0,20}") {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert_eq!(email.as_str().parse::<Email>().unwrap(), email.clone());
                prop_assert!((3..=254).contains(&email.as_str().len()));
            }
        }
    }
}
