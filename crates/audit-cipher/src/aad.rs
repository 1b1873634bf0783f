//! What a ciphertext is bound to: [`Aad`].

/// Where a row's values stand, as the version's record says it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub source: &'a str,
    pub table: &'a str,
    /// The row's key as it is stored: protected, where its columns are.
    pub key: Option<&'a str>,
    pub xid: u32,
    /// Start of the change's own WAL record.
    pub lsn: u64,
    /// The change's number in its transaction: several changes can share a WAL record.
    pub seq: u64,
}

/// The authenticated context of values, written so that two contexts are equal only if all their parts are: each text follows its length,
/// each number has eight bytes, and there are as many parts as the count before them says.
///
/// ```text
/// 1 | source | table | 0, or 1 and key | xid | lsn | seq | count of columns | (name | 0, or 1 and value)… | column
/// ```
#[derive(Clone, Debug, Default)]
pub struct Aad {
    bytes: Vec<u8>,
    /// Where the part ends that all values of a row share.
    row: usize,
}

/// The first byte: which order of parts this is.
const VERSION: u8 = 1;

impl Aad {
    pub fn new() -> Aad {
        Aad::default()
    }

    /// Begins the values of a row. `with` are further columns that they are bound to, with their values as stored.
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

    /// The context of one column's value in that row.
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
