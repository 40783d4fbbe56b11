//! Signatures that say who sent an event, and when: those of Standard Webhooks 1.0 (standardwebhooks.com), symmetric.

use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64Unpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of a secret, at least and at most: what the specification asks for.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets of a file.
const MOST: usize = 4;

/// Why there is nothing to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("`webhook.secret_file`: {}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line holds no secret.
    #[error(
        "`webhook.secret_file`: {}, line {line}: this is no secret; write `whsec_` and 24 to 64 random bytes in base64: \
         (umask 077; echo \"whsec_$(openssl rand -base64 32)\" > {})", path.display(), path.display()
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// No secret, or too many.
    #[error("`webhook.secret_file`: {}: it holds {found} secrets, and 1 to {MOST} can be used", path.display())]
    Count {
        /// Which file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
}

/// The secrets that sign: each of them does, so that receivers can change from one to the next.
pub(super) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl Secrets {
    /// Reads a file of secrets, one a line.
    pub(super) fn read(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| SecretError::Unreadable { path: path.into(), error })?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let secrets = lines.map(|(at, line)| {
            secret(line.trim()).ok_or_else(|| SecretError::Malformed { path: path.into(), line: at + 1 })
        });
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        if !(1..=MOST).contains(&secrets.len()) {
            return Err(SecretError::Count { path: path.into(), found: secrets.len() });
        }
        Ok(Self(secrets))
    }

    /// The header `webhook-signature` of a message that is sent at `timestamp`, in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = self.0.iter().filter_map(|secret| {
            // Invariant: HMAC takes a key of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes())))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

fn secret(line: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = line.strip_prefix("whsec_")?;
    let bytes = Base64::decode_vec(text).or_else(|_| Base64Unpadded::decode_vec(text)).ok().map(Zeroizing::new)?;
    LENGTHS.contains(&bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_signature_is_what_other_implementations_make_of_the_same_message() {
        // The secret and the message of the specification's examples; the signature is OpenSSL's.
        let secrets = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\n  whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
        let secrets = Secrets::read(file(secrets).path()).unwrap();
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signed = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, format!("{signature} {signature}"));
    }

    #[test]
    fn a_file_without_good_secrets_is_refused_and_not_repeated() {
        let long = format!("whsec_{}", Base64::encode_string(&[7; 65]));
        for (text, said) in [
            ("", "0 secrets"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "line 2"),
            ("whsec_short", "line 1"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL!!!", "line 1"),
            (&long, "line 1"),
            (&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(5), "5 secrets"),
        ] {
            let error = Secrets::read(file(text).path()).err().unwrap().to_string();
            assert!(error.contains(said) && !error.contains("MfKQ"), "{error}");
        }
        assert!(Secrets::read(Path::new("/does/not/exist")).is_err());
    }
}
