//! Why a user, a password or a token cannot be as asked: one enum, each message opening with the field.

use jiff::Timestamp;

use super::MOST_TOKENS;

/// Why a user, a password or a token cannot be made or changed as asked. It never quotes a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeopleError {
    /// The e-mail address is no login name.
    #[error("email: give 3 to 254 visible ASCII characters with one `@` between two parts")]
    Email,
    /// The name is empty, too long or holds control characters.
    #[error("name: give 1 to 200 characters without control characters")]
    Name,
    /// The password is too short or too long.
    #[error("password: give 12 to 128 characters; any will do, a sentence is best")]
    PasswordLength,
    /// The password is the first thing that anybody would try.
    #[error("password: must not be the e-mail address")]
    PasswordIsEmail,
    /// The user holds as many tokens as there may be.
    #[error("tokens: a user has at most {MOST_TOKENS}; remove one that is not used")]
    TooManyTokens,
    /// The password was changed between its proof and what it was proven for.
    #[error("password: it was changed a moment ago; sign in again")]
    PasswordChanged,
    /// Tokens of scripts must not pass for sign-ins.
    #[error("name: sign-ins have this one; take another")]
    NameOfSignIns,
    /// The token's expiry has passed already.
    #[error("expires_at: {0} is not in the future")]
    ExpiresInThePast(Timestamp),
    /// A record of a file could not have been made here.
    #[error("{0}: {1}")]
    NotOfHere(&'static str, &'static str),
    /// Without an operator nobody could name another.
    #[error("operator: no operator could get in then; make another one first, with a password or a token")]
    LastOperator,
}

impl PeopleError {
    /// The field that it is about.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Name | Self::NameOfSignIns => "name",
            Self::PasswordLength | Self::PasswordIsEmail | Self::PasswordChanged => "password",
            Self::TooManyTokens => "tokens",
            Self::ExpiresInThePast(_) => "expires_at",
            Self::NotOfHere(field, _) => field,
            Self::LastOperator => "operator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_opens_with_its_field() {
        for error in [
            PeopleError::Email,
            PeopleError::Name,
            PeopleError::PasswordLength,
            PeopleError::PasswordIsEmail,
            PeopleError::PasswordChanged,
            PeopleError::NameOfSignIns,
            PeopleError::TooManyTokens,
            PeopleError::ExpiresInThePast(Timestamp::UNIX_EPOCH),
            PeopleError::NotOfHere("password", "is no Argon2id hash"),
            PeopleError::LastOperator,
        ] {
            assert!(error.to_string().starts_with(&format!("{}: ", error.field())), "{error}");
        }
    }
}
