//! From Authorization headers to one token, or to a refusal (RFC 6750, section 2.1).

use crate::key::{ForeignToken, Token};

/// What a call says of who makes it. Nothing is proven yet.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    /// No Authorization header at all: the call is evaluated as `Anonymous`.
    None,
    /// Something that is not exactly one well-formed bearer token. Never anonymous.
    Malformed,
    /// Relayed by a peer that is not trusted, so they count for nothing.
    Distrusted,
    /// One well-formed token.
    Token(Token<'a>),
    /// One that is none of ours, and may be of a key that moved here from another system.
    Foreign(ForeignToken<'a>),
}

impl<'a> Credentials<'a> {
    /// Reads all the Authorization headers of a call, of which there may be one.
    ///
    /// The scheme's case and the number of spaces behind it do not matter (RFC 9110, section 11.4).
    pub fn of_headers(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(value), None) => Self::of_header(value),
            (Some(_), Some(_)) => Self::Malformed,
        }
    }

    /// Reads the value of one Authorization header.
    pub fn of_header(value: &'a [u8]) -> Self {
        let Some((scheme, rest)) = value.split_at_checked("Bearer".len()) else {
            return Self::Malformed;
        };
        if !scheme.eq_ignore_ascii_case(b"Bearer") || !rest.starts_with(b" ") {
            return Self::Malformed;
        }
        Self::of_token(rest.trim_ascii())
    }

    /// Reads a bare token, as a JSON caller may give it.
    pub fn of_token(text: &'a [u8]) -> Self {
        let foreign = || ForeignToken::parse(text).map_or(Self::Malformed, Self::Foreign);
        Token::parse(text).map_or_else(|_| foreign(), Self::Token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Mint, Mode};

    #[test]
    fn one_bearer_token_is_read_however_the_scheme_is_spelled() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer  "] {
            let header = format!("{scheme}{}", mint.expose());
            let read = Credentials::of_headers([header.as_bytes()].into_iter());
            assert!(matches!(read, Credentials::Token(token) if token.selector == mint.selector()), "{scheme}");
        }
    }

    #[test]
    fn anything_else_is_malformed_and_never_anonymous() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let token = mint.expose();
        let one = format!("Bearer {token}");
        let many: Vec<String> = vec![
            String::new(),
            "Bearer".into(),
            "Bearer ".into(),
            token.into(),
            format!("Basic {token}"),
            format!("Bearer{token}"),
            format!("Bearer {token}, Bearer {token}"),
            format!("Bearer {token}0"),
            format!("Bearer {}", "a".repeat(1 << 20)),
            format!("Bearer {token}\u{0}"),
            "Bearer ключ".into(),
            format!("Bearer\t{token}"),
            format!("Token {token}"),
        ];
        for header in &many {
            let read = Credentials::of_headers([header.as_bytes()].into_iter());
            // What has the form of a token and is none of ours may be of a key that moved here.
            let could_be_foreign = header == &format!("Bearer {token}0");
            assert_eq!(matches!(read, Credentials::Foreign(_)), could_be_foreign, "{header}");
            assert_eq!(matches!(read, Credentials::Malformed), !could_be_foreign, "{header}");
        }
        let twice = [one.as_bytes(), one.as_bytes()];
        assert!(matches!(Credentials::of_headers(twice.into_iter()), Credentials::Malformed));
        assert!(matches!(Credentials::of_headers(std::iter::empty()), Credentials::None));
    }
}
