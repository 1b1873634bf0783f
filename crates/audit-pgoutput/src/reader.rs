//! Reads big-endian fields from a byte slice and keeps the offset that it has reached.

use crate::Problem;

pub(crate) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Reader<'a> {
        Reader { data, at: 0 }
    }

    pub fn offset(&self) -> usize {
        self.at
    }

    /// Checks that every byte has been read.
    pub fn finish(&self) -> Result<(), Problem> {
        if self.at == self.data.len() { Ok(()) } else { Err(Problem::Long) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).ok_or(Problem::Short)?;
        self.at += N;
        Ok(*bytes)
    }

    pub fn u8(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Problem> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads `length` bytes and returns the offset at which they start with them.
    pub fn bytes(&mut self, length: u32) -> Result<(usize, &'a [u8]), Problem> {
        let start = self.at;
        let end = start.checked_add(length as usize).ok_or(Problem::Length)?;
        let bytes = self.data.get(start..end).ok_or(Problem::Length)?;
        self.at = end;
        Ok((start, bytes))
    }

    /// Reads a text that ends with a zero byte.
    pub fn name(&mut self) -> Result<&'a str, Problem> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).ok_or(Problem::Name)?;
        let name = std::str::from_utf8(&rest[..end]).map_err(|_| Problem::Name)?;
        self.at += end + 1;
        Ok(name)
    }

    /// Returns `count` if so many items of at least `size` bytes each fit into the rest of the message.
    pub fn fits(&self, count: u32, size: usize) -> Result<usize, Problem> {
        let count = count as usize;
        let fits = count.checked_mul(size).is_some_and(|bytes| bytes <= self.data.len() - self.at);
        if fits { Ok(count) } else { Err(Problem::Length) }
    }
}
