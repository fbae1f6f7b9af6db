//! Reads and writes the primitive types of the Kafka protocol. In: bytes of an answer, or values of a
//! request. Out: values or [`Malformed`], or bytes. Knows no message.
//!
//! Older versions of a message have fixed lengths (2 bytes for a string, 4 for an array, -1 is null).
//! "Flexible" versions have compact lengths (a varint of the length plus 1, 0 is null) and tagged fields at
//! the end of every struct. Reader and Writer know which of the two applies, so the messages do not have to.

/// Why bytes are no valid answer. Does not name the request: the caller does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::kafka) struct Malformed(pub String);

/// Elements for which an array has memory before the first one is read; a longer array grows. A struct has at
/// most about 200 bytes, so a wrong length costs at most 200 kB before the answer is refused.
const INITIAL_CAPACITY: usize = 1024;

/// Reads values from the start of the remaining bytes. Every read is checked. An array of n elements needs n
/// bytes at least, so the memory for an answer is proportional to its size, whatever lengths it claims.
#[derive(Debug)]
pub(in crate::kafka) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self {
            rest: bytes,
            flexible,
        }
    }

    /// Number of bytes that are not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.chunk::<1>()? != [0])
    }

    pub fn i8(&mut self) -> Result<i8, Malformed> {
        Ok(i8::from_be_bytes(self.chunk()?))
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.chunk()?))
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.chunk()?))
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.chunk()?))
    }

    pub fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.chunk()
    }

    pub fn string(&mut self) -> Result<String, Malformed> {
        self.nullable_string()?
            .ok_or_else(|| Malformed("a string is null".into()))
    }

    pub fn nullable_string(&mut self) -> Result<Option<String>, Malformed> {
        let length = match self.flexible {
            true => self.compact_length()?,
            false => fixed_length(self.i16()?.into())?,
        };
        let Some(length) = length else {
            return Ok(None);
        };
        match std::str::from_utf8(self.take(length)?) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => Err(Malformed(format!("a string is not UTF-8: {error}"))),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.nullable_bytes()?
            .ok_or_else(|| Malformed("a byte field is null".into()))
    }

    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length()? {
            Some(length) => Ok(Some(self.take(length)?)),
            None => Ok(None),
        }
    }

    /// An array; `element` reads one element and must consume at least one byte.
    pub fn array<T>(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        self.nullable_array(element)?
            .ok_or_else(|| Malformed("an array is null".into()))
    }

    pub fn nullable_array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if length > self.remaining() {
            return Err(Malformed(format!(
                "an array claims {length} elements in {} bytes",
                self.remaining()
            )));
        }
        let mut elements = Vec::with_capacity(length.min(INITIAL_CAPACITY));
        for _ in 0..length {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// Skips the tagged fields of a flexible version; the messages here need none of them.
    pub fn end_of_struct(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        // Each turn consumes two bytes at least, so a wrong number ends with the bytes.
        for _ in 0..self.unsigned_varint()? {
            let _tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()?;
            self.take(size as usize)?;
        }
        Ok(())
    }

    /// Length of an array or a byte field; None: null.
    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        match self.flexible {
            true => self.compact_length(),
            false => fixed_length(self.i32()?),
        }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self
            .unsigned_varint()?
            .checked_sub(1)
            .map(|length| length as usize))
    }

    /// Seven bits a byte, the lowest first; the highest bit says that another byte follows.
    fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.chunk()?;
            let bits = u32::from(byte & 0x7f);
            // The fifth byte has room for 4 bits.
            if shift == 28 && byte > 0x0f {
                return Err(Malformed("a varint is longer than 32 bits".into()));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    /// A number whose small values have few bytes, also negative ones, as records have them.
    pub fn varlong(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.chunk()?;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Malformed("a varint is longer than 64 bits".into()))
    }

    /// Bytes with their length as a varint, as records have them; None: the length is -1.
    pub fn varbytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.varlong()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => Ok(Some(self.take(length)?)),
                Err(_) => Err(Malformed(format!("the length {length} is negative"))),
            },
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((chunk, rest)) = self.rest.split_first_chunk() else {
            return Err(self.too_short(N));
        };
        self.rest = rest;
        Ok(*chunk)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.too_short(length));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn too_short(&self, wanted: usize) -> Malformed {
        Malformed(format!("a field has {wanted} bytes, {} remain", self.remaining()))
    }
}

/// None: null, which is -1.
fn fixed_length(length: i32) -> Result<Option<usize>, Malformed> {
    match usize::try_from(length) {
        Ok(length) => Ok(Some(length)),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(Malformed(format!("the length {length} is negative"))),
    }
}

/// Appends values to a message.
#[derive(Debug)]
pub(in crate::kafka) struct Writer {
    bytes: Vec<u8>,
    flexible: bool,
}

impl Writer {
    pub fn new(flexible: bool) -> Self {
        Self {
            bytes: Vec::new(),
            flexible,
        }
    }

    /// For the request header, which is flexible only behind the client id.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn bool(&mut self, value: bool) {
        self.bytes.push(value.into());
    }

    pub fn i8(&mut self, value: i8) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn i16(&mut self, value: i16) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn uuid(&mut self, value: [u8; 16]) {
        self.bytes.extend(value);
    }

    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    /// Strings of older versions have at most 32767 bytes. A longer one is written as null, so that the
    /// broker refuses the request: a shortened name could be that of another topic or group.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        if self.flexible {
            self.compact_length(value.map(str::len));
        } else {
            let length = value.and_then(|text| i16::try_from(text.len()).ok());
            self.i16(length.unwrap_or(-1));
            if length.is_none() {
                return;
            }
        }
        self.bytes.extend(value.unwrap_or_default().as_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.length(Some(value.len()));
        self.bytes.extend(value);
    }

    pub fn array<T>(&mut self, values: &[T], mut element: impl FnMut(&mut Self, &T)) {
        self.length(Some(values.len()));
        for value in values {
            element(self, value);
        }
    }

    pub fn null_array(&mut self) {
        self.length(None);
    }

    /// No tagged fields; nothing at all in a version that is not flexible.
    pub fn end_of_struct(&mut self) {
        if self.flexible {
            self.unsigned_varint(0);
        }
    }

    fn length(&mut self, length: Option<usize>) {
        if self.flexible {
            self.compact_length(length);
        } else {
            self.i32(length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX)));
        }
    }

    fn compact_length(&mut self, length: Option<usize>) {
        let plus_one = length.map_or(0, |length| length.saturating_add(1));
        self.unsigned_varint(u32::try_from(plus_one).unwrap_or(u32::MAX));
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests;
