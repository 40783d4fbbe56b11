//! What policies name: the entities, addresses and times at which their answers may change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;

use crate::key::{AccountId, EnvironmentId, KeyId, Mode};
use crate::policy::Revision;

/// Everything that some policies name, as far as requests can be made with it.
#[derive(Debug, Default)]
pub(super) struct Literals {
    /// Keys.
    pub keys: BTreeSet<KeyId>,
    /// Accounts, those of environments that are named among them.
    pub accounts: BTreeSet<AccountId>,
    /// Ids of whatever else.
    pub items: BTreeSet<String>,
    /// Addresses in each network, and beside it.
    pub addresses: BTreeSet<IpAddr>,
    /// Moments, and those just before and after them.
    pub times: BTreeSet<Timestamp>,
}

impl Literals {
    /// What the policies about the API name in these revisions.
    pub fn of(revisions: &[&Revision]) -> Self {
        let mut literals = Self::default();
        let policies = revisions.iter().flat_map(|revision| revision.api_policies().policies());
        policies.filter_map(|policy| policy.to_json().ok()).for_each(|json| literals.add(&json));
        literals
    }

    fn add(&mut self, json: &Value) {
        match json {
            Value::Object(members) => {
                if let (Some(of_type), Some(id)) = (text(members.get("type")), text(members.get("id"))) {
                    self.entity(of_type, id);
                }
                for (name, member) in members {
                    let argument = || text(member.get(0)?.get("Value"));
                    match name.as_str() {
                        "ip" => argument().into_iter().for_each(|argument| self.network(argument)),
                        "datetime" => argument().into_iter().for_each(|argument| self.moment(argument)),
                        _ => {}
                    }
                    self.add(member);
                }
            }
            Value::Array(members) => members.iter().for_each(|member| self.add(member)),
            _ => {}
        }
    }

    fn entity(&mut self, of_type: &str, id: &str) {
        let word = of_type.rsplit("::").next().unwrap_or(of_type);
        match word {
            "Account" => self.accounts.extend(id.parse::<AccountId>()),
            "Environment" => self.accounts.extend(id.parse::<EnvironmentId>().map(|environment| environment.account)),
            "PublishableKey" | "SecretKey" | "RestrictedKey" => self.keys.extend(id.parse::<KeyId>()),
            "Action" | "Scope" | "Anonymous" => {}
            // What does not go into a path is no item of ours.
            _ if id.is_empty() || id.contains('/') => {}
            _ => drop(self.items.insert(id.to_owned())),
        }
    }

    fn network(&mut self, text: &str) {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(network) = network else { return };
        self.addresses.extend([network.addr(), network.network(), network.broadcast()]);
        let beside = match network.broadcast() {
            IpAddr::V4(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
            IpAddr::V6(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
        };
        self.addresses.extend(beside);
    }

    fn moment(&mut self, text: &str) {
        // Cedar's datetimes may be a date alone, or have no zone (RFC 80 of Cedar): those are UTC.
        let whole = |text: String| text.parse::<Timestamp>().ok();
        let Some(moment) = whole(text.to_owned()).or_else(|| whole(format!("{text}T00:00:00Z"))) else { return };
        let beside = [-1, 1].map(|millis| moment.checked_add(jiff::SignedDuration::from_millis(millis)).ok());
        self.times.extend([Some(moment)].into_iter().chain(beside).flatten());
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

/// Both modes.
pub(super) const MODES: [Mode; 2] = [Mode::Live, Mode::Test];
