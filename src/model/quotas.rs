use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

macro_rules! quotas {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What an app may have at most, on all nodes together. What is absent has no limit.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Quotas { $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<u64>,)+ }

        impl Quotas {
            /// The names of all quotas, with what each is.
            pub const ALL: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc),+)),)+];

            /// The quota of that name; `None` if it has no limit, or there is no such quota.
            pub fn of(&self, name: &str) -> Option<u64> {
                match name { $(stringify!($name) => self.$name,)+ _ => None }
            }

            fn known(values: &Map<String, Value>) -> Self {
                Self { $($name: values.get(stringify!($name)).and_then(Value::as_u64),)+ }
            }
        }
    };
}

quotas! {
    /// Connections at once.
    peak_connections,
    /// Publications a month.
    messages_per_month,
    /// Publications a second.
    messages_per_second,
    /// Channels at once.
    channels,
    /// Members of a channel's presence.
    presence_members,
    /// How long history is kept, seconds.
    history_seconds,
    /// Bytes of history.
    history_bytes,
    /// Bytes of a message.
    message_bytes,
    /// Devices for push.
    devices,
    /// Webhooks.
    webhooks,
    /// Requests of backends a second.
    api_calls_per_second,
}

impl Quotas {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For `deserialize_with`: what another program has written, which may know more quotas than this one.
    ///
    /// # Errors
    ///
    /// It is no table.
    pub fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|values| Self::known(&values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotas_are_read_by_name() {
        let quotas: Quotas = serde_json::from_value(json!({"channels": 7})).unwrap();
        assert_eq!((quotas.of("channels"), quotas.of("devices")), (Some(7), None));
        assert!(serde_json::from_value::<Quotas>(json!({"chanels": 7})).is_err());
        assert!(Quotas::ALL.iter().all(|(_, about)| !about.is_empty()));
    }

    #[test]
    fn those_of_a_newer_program_are_passed_over_where_that_is_wanted() {
        let written = json!({"channels": 7, "later": 5, "devices": 0});
        let quotas = Quotas::lenient(written).unwrap();
        assert_eq!(
            (quotas.channels, quotas.devices, quotas.webhooks),
            (Some(7), Some(0), None)
        );
        assert!(!quotas.is_empty() && Quotas::default().is_empty());
    }
}
