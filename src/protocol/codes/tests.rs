use super::*;

#[test]
fn codes_ascend_and_fit_a_close_frame() {
    assert!(ErrorCode::ALL.is_sorted_by_key(|code| code.code()));
    assert!(DisconnectCode::ALL.is_sorted_by_key(|code| code.code()));
    assert!(UnsubscribeCode::ALL.is_sorted_by_key(|code| code.code()));
    assert!(DisconnectCode::ALL.iter().all(|code| code.message().len() <= 123));
}
