//! The judge: compares what a subscriber saw with what was acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    client::{Client, Seen},
    publisher::{Acked, Published},
};

/// From here on a subscriber must see everything: since a fresh subscribe, or one whose recovery
/// was refused.
struct Stretch<'a> {
    epoch: &'a str,
    /// The last offset it has seen, or was told it needs not see.
    at: u64,
    /// The payloads it has seen.
    ids: HashSet<&'a str>,
}

impl<'a> Stretch<'a> {
    fn new(epoch: &'a str, at: u64) -> Self {
        Self {
            epoch,
            at,
            ids: HashSet::new(),
        }
    }
}

/// Panics unless `client` saw of `channel` every acknowledged publication since it came, in order,
/// once, with the payload that was sent; apart from what it was told (`recovered: false`) it may
/// have missed.
#[track_caller]
pub(crate) fn check(client: &Client, channel: &str, published: &Published) {
    if let Err(why) = judge(&client.channel(channel).seen, &published.of(channel)) {
        panic!("{channel}: {why}\n{}", client.summary());
    }
}

/// Waits until `client` has seen the last acknowledged publication of `channel`, then [`check`]s.
/// There must be one since its last stretch began.
pub(crate) async fn check_to_end(client: &Client, channel: &str, published: &Published) {
    let last = published.last(channel);
    client.wait_for(channel, last.offset).await;
    check(client, channel, published);
}

fn judge(seen: &[Seen], published: &[Acked]) -> Result<(), String> {
    let mut stored: HashMap<&str, BTreeMap<u64, &str>> = HashMap::new();
    let mut places: HashMap<(&str, &str), u64> = HashMap::new();
    for acked in published {
        stored
            .entry(&acked.epoch)
            .or_default()
            .insert(acked.offset, &acked.id);
        places.insert((&acked.epoch, &acked.id), acked.offset);
    }
    let none = BTreeMap::new();
    let mut stretch: Option<Stretch<'_>> = None;
    for (index, event) in seen.iter().enumerate() {
        match event {
            Seen::Subscribed {
                asked,
                recovered,
                offset,
                epoch,
            } => match (asked, recovered, &stretch) {
                (_, false, _) => stretch = Some(Stretch::new(epoch, *offset)),
                (None, true, _) => return Err(format!("event {index}: recovered what was not asked for")),
                (Some(asked), true, None) => stretch = Some(Stretch::new(epoch, *asked)),
                (Some(_), true, Some(stretch)) if stretch.epoch != epoch => {
                    return Err(format!("event {index}: recovered into another epoch"));
                }
                (Some(_), true, Some(_)) => {}
            },
            Seen::Publication { offset, data } => {
                let Some(stretch) = &mut stretch else {
                    return Err(format!(
                        "event {index}: {offset} before any subscribe was answered"
                    ));
                };
                if *offset <= stretch.at {
                    return Err(format!("event {index}: {offset} after {}", stretch.at));
                }
                let stored = stored.get(stretch.epoch).unwrap_or(&none);
                if let Some((lost, _)) = stored.range(stretch.at + 1..*offset).next() {
                    return Err(format!("event {index}: {lost} was lost before {offset}"));
                }
                let id = data["id"].as_str().unwrap_or("");
                if stored.get(offset).is_some_and(|stored| *stored != id) {
                    return Err(format!(
                        "event {index}: another payload than was acknowledged at {offset}: {id}"
                    ));
                }
                let place = places.get(&(stretch.epoch, id));
                if place.is_some_and(|place| place != offset) || !stretch.ids.insert(id) {
                    return Err(format!(
                        "event {index}: {id} is also at another offset than {offset}"
                    ));
                }
                stretch.at = *offset;
            }
            Seen::Unsubscribed(_) | Seen::Refused(_) => {}
        }
    }
    let Some(stretch) = stretch else {
        return Err("never subscribed".to_owned());
    };
    let stored = stored.get(stretch.epoch).unwrap_or(&none);
    match stored.range(stretch.at + 1..).next() {
        Some((lost, _)) => Err(format!("{lost} was lost at the end (after {})", stretch.at)),
        None => Ok(()),
    }
}

#[test]
fn the_judge_finds_what_is_wrong() {
    let acked = |offset: u64| Acked {
        id: offset.to_string(),
        offset,
        epoch: "e".to_owned(),
        duplicate: false,
    };
    let published: Vec<_> = [2, 5, 9].map(acked).into();
    let publication = |offset: u64| Seen::Publication {
        offset,
        data: serde_json::json!({"id": offset.to_string()}),
    };
    let fresh = |offset| Seen::Subscribed {
        asked: None,
        recovered: false,
        offset,
        epoch: "e".to_owned(),
    };
    let again = |asked, recovered, offset| Seen::Subscribed {
        asked: Some(asked),
        recovered,
        offset,
        epoch: "e".to_owned(),
    };
    let [two, three, five, six, nine] = [2, 3, 5, 6, 9].map(publication);
    let good = [
        vec![fresh(0), two.clone(), five.clone(), nine.clone()],
        vec![fresh(2), five.clone(), again(5, true, 9), nine.clone()],
        vec![fresh(0), two.clone(), again(2, false, 7), nine.clone()],
        vec![again(3, true, 9), five.clone(), six.clone(), nine.clone()],
        vec![fresh(9)],
    ];
    for seen in good {
        assert_eq!(judge(&seen, &published), Ok(()), "{seen:?}");
    }
    let bad = [
        vec![],
        vec![two.clone()],
        vec![fresh(0), two.clone(), nine.clone()],
        vec![fresh(0), five.clone(), nine.clone()],
        vec![fresh(0), two.clone(), five.clone()],
        vec![fresh(0), two.clone(), five.clone(), five.clone(), nine.clone()],
        vec![fresh(0), five.clone(), two.clone(), nine.clone()],
        vec![fresh(2), five.clone(), again(5, true, 9)],
        vec![again(2, true, 9), nine.clone()],
        vec![fresh(2), three.clone(), six.clone(), nine.clone()],
    ];
    for seen in bad {
        assert!(judge(&seen, &published).is_err(), "{seen:?}");
    }
}
