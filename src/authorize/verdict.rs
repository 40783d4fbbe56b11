//! The answer: an outcome, one reason code, and what a caller may be told about it.

use std::sync::Arc;

use cedar_policy::PolicyId;
use jiff::Timestamp;

use crate::key::Scope;
use crate::policy::Revision;
use crate::ring::LiveKey;

/// What a surface must do with the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 200: let it through.
    Allow,
    /// 401: nobody we know.
    Unauthenticated,
    /// 403: known, and not allowed to.
    Forbidden,
}

impl Outcome {
    /// Its name in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Allow => 200,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $outcome:ident, $code:literal, $message:literal;)*) => {
        /// Why: one code, alike in headers, JSON, logs and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The outcome that goes with it, always the same one.
            pub fn outcome(self) -> Outcome {
                match self {
                    $(Self::$name => Outcome::$outcome,)*
                }
            }

            /// One sentence for whoever sent the call: what is wrong and what to do.
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message,)*
                }
            }
        }
    };
}

impl Reason {
    /// Whether the call that it answers, if its secret was proven, was one with a key that works: such a call is a use
    /// of the key, whatever became of it.
    pub fn is_of_a_good_key(self) -> bool {
        use Reason::{KeyCompromised, KeyDisabled, KeyExpired, KeyRevoked, KeyUnknown};
        !matches!(self, KeyUnknown | KeyExpired | KeyDisabled | KeyRevoked | KeyCompromised)
    }

    /// Whether it is the schema and the policies that said so, and another revision might say otherwise. What was refused
    /// before they were asked (a bad token, a key that does not work, the transport) is refused under any.
    pub fn is_of_the_revision(self) -> bool {
        use Reason::{Allowed, CredentialsMissing, NoRoute, PolicyDenied, PolicyError, ScopeMissing};
        matches!(self, Allowed | CredentialsMissing | NoRoute | ScopeMissing | PolicyDenied | PolicyError)
    }

    /// The reason of this code.
    pub fn named(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
    }
}

reasons! {
    /// A policy permits it and none forbids it.
    Allowed, Allow, "allowed", "The call is allowed.";
    /// No credentials, and no policy lets everybody in.
    CredentialsMissing, Unauthenticated, "credentials_missing",
        "No API key was sent. Pass your secret key as `Authorization: Bearer <key>`.";
    /// Not exactly one well-formed bearer token.
    CredentialsMalformed, Unauthenticated, "credentials_malformed",
        "The Authorization header is not one well-formed bearer token. Check that the key was copied whole.";
    /// Unknown selector or wrong secret: alike, so that nothing is learned.
    KeyUnknown, Unauthenticated, "key_unknown", "There is no such API key.";
    /// The key's expiry, or the end of its secret's overlap, has passed.
    KeyExpired, Unauthenticated, "key_expired", "The API key has expired. Create or rotate a key.";
    /// Switched off by its owner.
    KeyDisabled, Unauthenticated, "key_disabled", "The API key is disabled.";
    /// Dead for good.
    KeyRevoked, Unauthenticated, "key_revoked", "The API key was revoked.";
    /// Seen where others may have read it.
    KeyCompromised, Unauthenticated, "key_compromised",
        "The API key is considered compromised, because it was exposed. Rotate it or create a new one.";
    /// The asking peer is no trusted proxy, so what it says of a call counts for nothing.
    PeerUntrusted, Unauthenticated, "peer_untrusted",
        "The peer is not among the trusted proxies, so nothing that it states is believed.";
    /// A key over plain HTTP.
    TransportInsecure, Forbidden, "transport_insecure",
        "API keys must be sent over HTTPS. One that travelled in the clear is considered compromised: rotate it.";
    /// The proxy did not say whether the call came over TLS.
    TransportUnknown, Forbidden, "transport_unknown",
        "The proxy did not state, exactly once, whether the call came over HTTPS. Have it set its protocol header.";
    /// The proxy did not state method or path exactly once and readably.
    RequestUnclear, Forbidden, "request_unclear",
        "The proxy did not state the call's method and path exactly once. Check its forward-auth configuration.";
    /// From outside the key's list of addresses.
    AddressNotAllowed, Forbidden, "address_not_allowed", "The API key may not be used from this address.";
    /// The policies in force are older than the configuration lets them decide about live data.
    PoliciesStale, Forbidden, "policies_stale",
        "Newer policies have been waiting to come into force for too long, so calls with live keys are refused for now.";
    /// Two parsers could read the path differently.
    PathAmbiguous, Forbidden, "path_ambiguous",
        "The path can be read in more than one way (dot segments, encoded delimiters, control characters).";
    /// No endpoint of the schema has this method and path.
    NoRoute, Forbidden, "no_route", "There is no such endpoint.";
    /// A restricted key without a scope that would have helped.
    ScopeMissing, Forbidden, "scope_missing", "The API key lacks a scope that this call needs.";
    /// No policy permits it, or one forbids it.
    PolicyDenied, Forbidden, "policy_denied", "The API key is not allowed to make this call.";
    /// A policy could not be evaluated; Cedar would skip it, which may turn a forbid into an allow.
    PolicyError, Forbidden, "policy_error", "A policy failed to evaluate, so the call is refused.";
}

/// A decision about one call.
#[derive(Debug)]
pub struct Verdict {
    /// Why, and by that the outcome.
    pub reason: Reason,
    /// The key that was proven. Present for every allowed call but anonymous ones, absent for every 401
    /// in which nothing was proven.
    pub key: Option<Arc<LiveKey>>,
    /// The action that the call's route names, once there is one.
    pub action: Option<Arc<str>>,
    /// The policies that decided: those that permit, those that forbid, or those that failed.
    pub policies: Arc<[PolicyId]>,
    /// The scopes, one of which would have been enough; for [`Reason::ScopeMissing`] alone.
    pub missing_scopes: Arc<[Scope]>,
    /// The revision that was asked.
    pub revision: Arc<Revision>,
    /// When.
    pub at: Timestamp,
}
