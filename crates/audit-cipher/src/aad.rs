//! The context that a ciphertext is bound to: [`Aad`].

/// The place of a row's values, as the version's record states it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub source: &'a str,
    pub table: &'a str,
    /// The row's key as it is stored: protected if its columns are protected.
    pub key: Option<&'a str>,
    pub xid: u32,
    /// Start of the change's own WAL record.
    pub lsn: u64,
    /// The change's number in its transaction, because several changes can share a WAL record.
    pub seq: u64,
}

/// The authenticated context of values, written so that two contexts are equal only if all their parts are equal: the
/// length comes before each text, each number has eight bytes, and a count comes before the further columns.
///
/// ```text
/// 1 | source | table | 0, or 1 and key | xid | lsn | seq | count of columns | (name | 0, or 1 and value)… | column
/// ```
#[derive(Clone, Debug, Default)]
pub struct Aad {
    bytes: Vec<u8>,
    /// Length of the part that all values of a row share.
    row: usize,
}

/// The first byte, the version of this format.
const VERSION: u8 = 1;

impl Aad {
    pub fn new() -> Aad {
        Aad::default()
    }

    /// Begins the values of a row. `with` holds further columns that they are bound to, with their values as stored.
    pub fn row<'c>(&mut self, row: &Row<'_>, with: impl ExactSizeIterator<Item = (&'c str, Option<&'c str>)>) {
        self.bytes.clear();
        self.bytes.push(VERSION);
        self.text(row.source);
        self.text(row.table);
        self.option(row.key);
        for number in [u64::from(row.xid), row.lsn, row.seq, with.len() as u64] {
            self.bytes.extend_from_slice(&number.to_be_bytes());
        }
        for (name, value) in with {
            self.text(name);
            self.option(value);
        }
        self.row = self.bytes.len();
    }

    /// Returns the context of one column's value in that row.
    pub fn column(&mut self, name: &str) -> &[u8] {
        self.bytes.truncate(self.row);
        self.text(name);
        &self.bytes
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn option(&mut self, text: Option<&str>) {
        self.bytes.push(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW: Row<'_> = Row { source: "shop", table: "public.users", key: Some("7"), xid: 1, lsn: 2, seq: 3 };

    fn bytes(row: &Row<'_>, with: &[(&str, Option<&str>)], column: &str) -> Vec<u8> {
        let mut aad = Aad::new();
        aad.row(row, with.iter().copied());
        aad.column("another");
        aad.column(column).to_vec()
    }

    #[test]
    fn contexts_that_differ_in_anything_differ() {
        let mut all = vec![
            bytes(&ROW, &[], "ssn"),
            bytes(&ROW, &[], "ssn2"),
            bytes(&Row { source: "shop2", ..ROW }, &[], "ssn"),
            bytes(&Row { source: "sho", table: "ppublic.users", ..ROW }, &[], "ssn"),
            bytes(&Row { key: None, ..ROW }, &[], "ssn"),
            bytes(&Row { key: Some(""), ..ROW }, &[], "ssn"),
            bytes(&Row { xid: 2, ..ROW }, &[], "ssn"),
            bytes(&Row { lsn: 3, ..ROW }, &[], "ssn"),
            bytes(&Row { seq: 4, ..ROW }, &[], "ssn"),
            bytes(&ROW, &[("provider_id", Some("1"))], "ssn"),
            bytes(&ROW, &[("provider_id", None)], "ssn"),
            bytes(&ROW, &[("provider_id", Some("")), ("1", None)], "ssn"),
        ];
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(bytes(&ROW, &[], "ssn"), bytes(&ROW, &[], "ssn"));
    }

    type Parts = (String, String, Option<String>, (u32, u64, u64), Vec<(String, Option<String>)>, String);

    /// Parts made of few letters, so that parts of one context are easily mistaken for parts of another.
    fn parts() -> impl Strategy<Value = Parts> {
        let word = || "[a\u{0}\u{1}]{0,3}";
        let columns = prop::collection::vec((word(), prop::option::of(word())), 0..4);
        (word(), word(), prop::option::of(word()), (0..2u32, 0..2u64, 0..2u64), columns, word())
    }

    fn written((source, table, key, (xid, lsn, seq), with, column): &Parts) -> Vec<u8> {
        let row = Row { source, table, key: key.as_deref(), xid: *xid, lsn: *lsn, seq: *seq };
        let with: Vec<(&str, Option<&str>)> =
            with.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        bytes(&row, &with, column)
    }

    proptest! {
        #[test]
        fn contexts_are_written_alike_only_if_they_are_alike(a in parts(), b in parts()) {
            prop_assert_eq!(written(&a) == written(&b), a == b);
        }

        /// Moves a column's value into its name, or the last column's name among the further columns.
        #[test]
        fn no_part_runs_into_the_next(a in parts(), at in 0..4usize) {
            let mut b = a.clone();
            if let Some((name, value)) = b.4.get_mut(at) {
                let moved = value.take().unwrap_or_default();
                name.push_str(&moved);
            } else {
                b.4.push((b.5.clone(), None));
            }
            prop_assert_ne!(written(&a) == written(&b), a != b);
        }
    }

    #[test]
    fn the_order_of_parts_is_as_documented() {
        let expected = concat!(
            "01",
            "000000000000000473686f70",
            "000000000000000174",
            "01000000000000000137",
            "000000000000000100000000000000020000000000000003",
            "0000000000000001",
            "000000000000000170",
            "00",
            "000000000000000163"
        );
        let row = Row { table: "t", ..ROW };
        assert_eq!(hex::encode(bytes(&row, &[("p", None)], "c")), expected);
    }
}
