use super::*;

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The rows of the table under a heading: code, message, and whether the third column begins with
/// "yes".
fn documented(heading: &str) -> Vec<(u16, String, bool)> {
    let section = DOCUMENT
        .split("\n## ")
        .find(|section| section.lines().next() == Some(heading))
        .unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let code = cells.next()?.parse().ok()?;
        Some((code, cells.next()?.to_owned(), cells.next()?.starts_with("yes")))
    });
    rows.collect()
}

#[test]
fn the_document_has_exactly_these_codes() {
    let errors = ErrorCode::ALL
        .iter()
        .map(|code| (code.code(), code.message().to_owned(), code.temporary()));
    assert_eq!(documented("Errors"), errors.collect::<Vec<_>>());
    let disconnects = DisconnectCode::ALL
        .iter()
        .map(|code| (code.code(), code.message().to_owned(), code.reconnects()));
    assert_eq!(documented("Disconnects"), disconnects.collect::<Vec<_>>());
    let unsubscribes = UnsubscribeCode::ALL
        .iter()
        .map(|code| (code.code(), code.message().to_owned(), code.resubscribes()));
    assert_eq!(documented("Unsubscribes"), unsubscribes.collect::<Vec<_>>());
}

#[test]
fn codes_ascend_and_fit_a_close_frame() {
    assert!(ErrorCode::ALL.is_sorted_by_key(|code| code.code()));
    assert!(DisconnectCode::ALL.is_sorted_by_key(|code| code.code()));
    assert!(UnsubscribeCode::ALL.is_sorted_by_key(|code| code.code()));
    assert!(DisconnectCode::ALL.iter().all(|code| code.message().len() <= 123));
}
