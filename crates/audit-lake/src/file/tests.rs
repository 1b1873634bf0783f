use super::*;

#[test]
fn parts_are_of_one_size_and_nothing_is_lost_between_them() {
    let mut pieces: Vec<Bytes> = Vec::new();
    for length in [PART_BYTES - 1, 1, 3 * PART_BYTES + 5, 0, 7, PART_BYTES] {
        pieces.push(vec![pieces.len() as u8; length].into());
    }
    let whole = pieces.concat();
    let parts = parts_of(pieces.into_iter().collect());
    let sizes: Vec<usize> = parts.iter().map(PutPayload::content_length).collect();
    assert_eq!(sizes, [PART_BYTES, PART_BYTES, PART_BYTES, PART_BYTES, PART_BYTES, 12]);
    assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>().concat(), whole);
    assert!(parts_of(PutPayload::new()).is_empty());
}
