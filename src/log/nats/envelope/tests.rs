use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const GOLDEN: &str = include_str!("../../../../tests/golden/log-format.json");

#[derive(Deserialize)]
struct Golden {
    envelopes: Vec<Vector>,
    unreadable: Vec<UnreadableVector>,
}

#[derive(Deserialize)]
struct Vector {
    kind: String,
    info: Option<Info>,
    #[serde(default)]
    tags: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Info {
    client: String,
    user: String,
    conn_info: Option<String>,
    chan_info: Option<String>,
}

#[derive(Deserialize)]
struct UnreadableVector {
    malformed: bool,
    headers: BTreeMap<String, String>,
}

fn map(headers: &BTreeMap<String, String>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name.as_str(), value.as_str());
    }
    map
}

/// Reads them as they come over the wire.
fn read(headers: &HeaderMap, data: &Bytes) -> Body {
    let mut block = "NATS/1.0\r\n".to_owned();
    for (name, values) in headers.iter() {
        for value in values {
            block += &format!("{name}: {value}\r\n");
        }
    }
    body(&Headers::parse(block.as_bytes()), data.clone())
}

#[test]
fn l3_golden_envelopes_hold() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let data = Bytes::from_static(b"{}");
    for vector in golden.envelopes {
        let kind = match vector.kind.as_str() {
            "tombstone" => {
                assert_eq!(map(&vector.headers), tombstone());
                assert_eq!(read(&tombstone(), &data), Body::Tombstone);
                continue;
            }
            "anchor" => {
                assert_eq!(map(&vector.headers), anchor());
                continue;
            }
            "json" => Kind::Json,
            "bytes" => Kind::Bytes,
            other => panic!("unknown kind {other}"),
        };
        let record = Record {
            kind,
            data: data.clone(),
            info: vector.info.map(|info| ClientInfo {
                client: info.client,
                user: info.user,
                conn_info: info.conn_info.map(Bytes::from),
                chan_info: info.chan_info.map(Bytes::from),
            }),
            tags: vector.tags,
        };
        assert_eq!(publication(&record), map(&vector.headers));
        assert_eq!(read(&map(&vector.headers), &data), Body::Publication(record));
    }
}

#[test]
fn l3_malformed_and_newer_messages_are_told_apart() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    for vector in golden.unreadable {
        assert_eq!(
            read(&map(&vector.headers), &Bytes::new()),
            Body::Unreadable {
                malformed: vector.malformed
            },
            "{:?}",
            vector.headers
        );
    }
}

fn info() -> impl Strategy<Value = ClientInfo> {
    let raw = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from));
    ("\\PC{0,8}", any::<String>(), raw(), raw()).prop_map(|(client, user, conn_info, chan_info)| ClientInfo {
        client,
        user,
        conn_info,
        chan_info,
    })
}

proptest! {
    #[test]
    fn l3_any_record_survives_and_stays_in_its_headers(
        json in any::<bool>(),
        data in proptest::collection::vec(any::<u8>(), 0..32),
        info in proptest::option::of(info()),
        tags in proptest::collection::vec((any::<String>(), any::<String>()), 0..4),
    ) {
        let kind = if json { Kind::Json } else { Kind::Bytes };
        let record = Record { kind, data: data.into(), info, tags };
        let headers = publication(&record);
        for (name, values) in headers.iter() {
            prop_assert!([SLIP, INFO, TAGS].contains(&name.as_ref()));
            prop_assert!(values.iter().all(|v| v.as_str().bytes().all(|b| b.is_ascii_graphic())));
        }
        for id in [None, Some("0123456789")] {
            let mut headers = headers.clone();
            if let Some(id) = id {
                headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
            }
            let line = |name: &str, value: &str| format!("{name}: {value}\r\n").len();
            let values = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
            let lines: usize = values.map(|(name, value)| line(name.as_ref(), value.as_str())).sum();
            prop_assert_eq!(headers_bytes(&record, id.map(str::len)), "NATS/1.0\r\n\r\n".len() + lines);
        }
        prop_assert_eq!(read(&headers, &record.data), Body::Publication(record));
    }
}
