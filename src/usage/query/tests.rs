use super::*;

const MINUTE: i64 = 60_000;

fn window(from_ms: i64, to_ms: i64, step: Step) -> Window {
    Window {
        from_ms,
        to_ms,
        step,
        group: Group::None,
    }
}

#[test]
fn a_window_is_of_whole_steps_and_not_too_many() {
    for (from, to, expected) in [
        (0, 1, Ok((0, MINUTE))),
        (MINUTE - 1, MINUTE, Ok((0, MINUTE))),
        (MINUTE - 1, MINUTE + 1, Ok((0, 2 * MINUTE))),
        (MINUTE, 4 * MINUTE, Ok((MINUTE, 4 * MINUTE))),
        (MINUTE, 4 * MINUTE + 1, Err(QueryError::TooMany(3))),
        (5, 5, Err(QueryError::Window)),
        (6, 5, Err(QueryError::Window)),
        (-1, 5, Err(QueryError::Window)),
        (0, i64::MAX, Err(QueryError::Window)),
        (0, LAST_MS - MINUTE, Err(QueryError::TooMany(3))),
    ] {
        assert_eq!(bounds(window(from, to, Step::Minute), 3), expected, "{from} {to}");
    }
    let day = Step::Day.ms();
    assert_eq!(bounds(window(day - 1, day + 1, Step::Day), 3), Ok((0, 2 * day)));
}

fn document(id: &str, numbers: &[(&str, i64)]) -> Document {
    Document {
        id: id.to_owned(),
        revision: 1,
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body: serde_json::json!({}),
        numbers: numbers
            .iter()
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect(),
        added: BTreeMap::new(),
    }
}

#[test]
fn a_document_is_a_row() {
    let row_of =
        |id: &str, prefix: &str, step, numbers: &[(&str, i64)]| row(&document(id, numbers), prefix, step);
    let counts: BTreeMap<_, _> = [("messages_in".to_owned(), 3)].into();
    let numbers = [("messages_in", 3), ("peak_a", 5), ("peak_b", 6)];
    assert_eq!(
        row_of("a/minute/0000000120", "a/minute/", Step::Minute, &numbers),
        Some(Row {
            start_ms: 120_000,
            namespace: Namespace::All,
            counts: counts.clone(),
            peak_connections: 11,
        })
    );
    let numbers = [("messages_in", 3), ("connections_peak", 9)];
    let hour = row_of("a/hour/0000003600", "a/hour/", Step::Hour, &numbers).unwrap();
    assert_eq!((hour.peak_connections, &hour.counts), (9, &counts));
    assert_eq!(hour.get(Measure::MessagesIn), 3);
    assert_eq!(hour.get(Measure::Pushes), 0);
    for (name, namespace) in [
        ("=", Namespace::Named(String::new())),
        ("=chat/x", Namespace::Named("chat/x".to_owned())),
        ("=*", Namespace::Named("*".to_owned())),
        ("*", Namespace::Others),
    ] {
        let id = format!("a/day-ns/0000086400/{name}");
        let row = row_of(&id, "a/day-ns/", Step::Day, &[]).unwrap();
        assert_eq!((row.namespace, row.start_ms), (namespace, 86_400_000));
    }
    for id in ["b/day-ns/0000086400/*", "a/day-ns/x/*", "a/day-ns/0000086400/x"] {
        assert_eq!(row_of(id, "a/day-ns/", Step::Day, &[]), None, "{id}");
    }
}
