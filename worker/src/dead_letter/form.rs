//! In which form a dead letter is written. In: a failed record and what its topic has refused so far. Out:
//! the record byte for byte, or as much of it as the topic accepts, with headers that say what is missing and
//! identify it. Pure.

use crds::dead_letter::part;
use sha2::{Digest, Sha256};

use super::headers::{HEADER_PREFIX, Header};
use crate::{
    kafka::producer::{ProduceRecord, Refusal, timestamp_of},
    record::Record,
};

/// Room for the record's framing, and for headers that say what is missing.
const MARGIN: usize = 1024;

/// What is different from the record that was read. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    body: Body,
    /// The present as the timestamp.
    now: bool,
    /// The record id as the key of a record without a key.
    own_key: bool,
    /// Only headers whose names are UTF-8.
    utf8_names: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    Whole,
    /// The value is cut by as much as the headers of the dead letter need.
    CutValue,
    /// The value is empty.
    WithoutValue,
    /// The same with only the headers of the dead letter, and the record id in place of a long key.
    OnlyHeaders,
}

impl Form {
    /// The form after the topic has refused others for these reasons, one after the other; `None` if no form
    /// is left.
    pub fn after_all(refusals: &[Refusal], record: &Record<'_>) -> Option<Self> {
        let after = |form: Self, refusal: &Refusal| form.after(*refusal, record);
        refusals.iter().try_fold(Self::default(), after)
    }

    /// The next form after the topic has refused this one; `None` if no form is left.
    pub fn after(self, refusal: Refusal, record: &Record<'_>) -> Option<Self> {
        match refusal {
            Refusal::TooLarge => self.smaller(record),
            Refusal::Timestamp if !self.now => Some(Self { now: true, ..self }),
            Refusal::HeaderName if !self.utf8_names => Some(Self {
                utf8_names: true,
                ..self
            }),
            Refusal::Record if record.key.is_none() && !self.own_key => Some(Self {
                own_key: true,
                ..self
            }),
            // Brokers before 2.4 report a bad timestamp, and some report a large record, like this as well.
            Refusal::Record if !self.now => Some(Self { now: true, ..self }),
            Refusal::Record => self.smaller(record),
            Refusal::Timestamp | Refusal::HeaderName => None,
        }
    }

    fn smaller(self, record: &Record<'_>) -> Option<Self> {
        let body = match self.body {
            Body::Whole if record.value.is_some_and(|value| value.len() > MARGIN) => Body::CutValue,
            Body::Whole | Body::CutValue if record.value.is_some_and(|value| !value.is_empty()) => {
                Body::WithoutValue
            }
            Body::Whole | Body::CutValue | Body::WithoutValue => Body::OnlyHeaders,
            Body::OnlyHeaders => return None,
        };
        Some(Self { body, ..self })
    }

    fn value<'a>(self, record: &Record<'a>, added: usize) -> Option<&'a [u8]> {
        let value = record.value?;
        let kept = match self.body {
            Body::Whole => value.len(),
            Body::CutValue => value.len().saturating_sub(added + MARGIN),
            // Not null, which would delete the key from a compacted topic.
            Body::WithoutValue | Body::OnlyHeaders => 0,
        };
        Some(&value[..kept])
    }
}

/// A dead letter in its form, without the topic and the partition.
pub(super) struct Letter<'a> {
    form: Form,
    record: Record<'a>,
    value: Option<&'a [u8]>,
    key: Option<Vec<u8>>,
    headers: Vec<Header>,
}

impl<'a> Letter<'a> {
    /// `ours` are the headers of the dead letter.
    pub fn new(form: Form, record: Record<'a>, ours: Vec<Header>) -> Self {
        let added = ours.iter().map(|(name, value)| name.len() + value.len()).sum();
        let value = form.value(&record, added);
        let long_key = record.key.is_some_and(|key| key.len() > MARGIN);
        let own_key = form.own_key || form.body == Body::OnlyHeaders && long_key;
        let key = own_key.then(|| {
            let partition = record.partition();
            format!("{}-{}-{}", partition.topic, partition.partition, record.offset).into_bytes()
        });
        let mut headers = ours;
        if let (Some(whole), Some(kept)) = (record.value, value)
            && whole.len() != kept.len()
        {
            headers.push((part::VALUE_SIZE, text(whole.len())));
            headers.push((part::VALUE_KEPT, text(kept.len())));
            headers.push((part::VALUE_SHA256, hash([whole])));
        }
        if own_key {
            let size = record.key.map_or("null".into(), |key| key.len().to_string());
            headers.push((part::KEY_SIZE, text(size)));
        }
        if let (true, Some(key)) = (own_key, record.key) {
            headers.push((part::KEY_SHA256, hash([key])));
        }
        if form.now {
            headers.push((part::TIMESTAMP_REFUSED, text(record.timestamp)));
        }
        let dropped: Vec<&[u8]> = (record.headers())
            .filter(|(name, _)| !form.keeps(name) && !name.starts_with(HEADER_PREFIX.as_bytes()))
            .flat_map(|(name, value)| [name, value.unwrap_or_default()])
            .collect();
        if !dropped.is_empty() {
            headers.push((part::HEADERS_DROPPED, text(dropped.len() / 2)));
            let size: usize = dropped.iter().map(|part| part.len()).sum();
            headers.push((part::HEADERS_SIZE, text(size)));
            headers.push((part::HEADERS_SHA256, hash(dropped)));
        }
        Self {
            form,
            record,
            value,
            key,
            headers,
        }
    }

    /// The headers of the dead letter, with those about its form.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The record to produce. `headers` are those of the record and of the dead letter.
    pub fn produce<'b>(
        &'b self,
        topic: &'b str,
        partition: Option<i32>,
        mut headers: Vec<(&'b [u8], Option<&'b [u8]>)>,
    ) -> ProduceRecord<'b> {
        let own = |name: &[u8]| self.headers.iter().any(|(ours, _)| ours.as_bytes() == name);
        headers.retain(|(name, _)| self.form.keeps(name) || own(name));
        ProduceRecord {
            topic,
            partition,
            timestamp: timestamp_of(self.record.timestamp).filter(|_| !self.form.now),
            key: self.key.as_deref().or(self.record.key),
            value: self.value,
            headers,
        }
    }
}

impl Form {
    /// Whether this header of the record is written.
    fn keeps(self, name: &[u8]) -> bool {
        self.body != Body::OnlyHeaders && !(self.utf8_names && std::str::from_utf8(name).is_err())
    }
}

fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut sha256 = Sha256::new();
    parts.into_iter().for_each(|part| sha256.update(part));
    let hex: String = (sha256.finalize().iter().map(|byte| format!("{byte:02x}"))).collect();
    hex.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, TopicPartition};

    fn chunk(key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> Arc<Chunk> {
        let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
        let headers = [(b"trace".as_slice(), Some(b"abc".as_slice())), (b"\xff", None)];
        chunk.push(7, timestamp, key, value, headers);
        Arc::new(chunk)
    }

    /// The forms of a record whose topic refuses each of them for the same reason.
    fn forms(record: &Record<'_>, refusal: Refusal) -> Vec<Form> {
        let next = |form: &Form| form.after(refusal, record);
        std::iter::successors(Some(Form::default()), next).collect()
    }

    /// Key, value, timestamp, and all headers as text.
    fn written(form: Form, record: Record<'_>) -> (String, String, Option<i64>, Vec<String>) {
        let letter = Letter::new(
            form,
            record,
            vec![("kafka-consumer.dev/stage", b"write".to_vec())],
        );
        let ours = letter.headers().iter();
        let ours = ours.map(|(name, value)| (name.as_bytes(), Some(value.as_slice())));
        let headers = record.headers().chain(ours).collect();
        let record = letter.produce("dlq", None, headers);
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("null".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let headers = record.headers.iter();
        let headers = headers.map(|(name, value)| format!("{}={}", text(Some(name)), text(*value)));
        (
            text(record.key),
            text(record.value),
            record.timestamp,
            headers.collect(),
        )
    }

    fn has(headers: &[String], header: &str) -> bool {
        headers.contains(&format!("kafka-consumer.dev/{header}"))
    }

    #[test]
    fn the_first_form_is_the_record_byte_for_byte() {
        let chunk = chunk(None, Some(b"value"), 0);
        let (key, value, timestamp, headers) = written(Form::default(), chunk.record(0));
        assert_eq!((&*key, &*value, timestamp), ("null", "value", Some(1)));
        assert_eq!(
            headers,
            ["trace=abc", "\u{fffd}=null", "kafka-consumer.dev/stage=write"]
        );
    }

    #[test]
    fn a_record_that_is_too_large_is_cut_then_emptied_then_only_described() {
        let large = vec![b'x'; 5000];
        let chunk = chunk(Some(b"k"), Some(&large), 5);
        let forms = forms(&chunk.record(0), Refusal::TooLarge);
        assert_eq!(forms.len(), 4, "{forms:?}");
        let (key, value, timestamp, headers) = written(forms[1], chunk.record(0));
        assert_eq!((&*key, timestamp), ("k", Some(5)));
        assert!(value.len() < 4000 && value.len() > 3900, "{}", value.len());
        assert!(has(&headers, "value-size=5000"), "{headers:?}");
        assert!(has(&headers, &format!("value-kept={}", value.len())));
        assert!(headers.iter().any(|header| header.contains("value-sha256=")
            && header.len() == "kafka-consumer.dev/value-sha256=".len() + 64));
        let (key, value, _, headers) = written(forms[2], chunk.record(0));
        assert_eq!((&*key, &*value), ("k", ""));
        assert!(
            has(&headers, "value-kept=0") && headers[0] == "trace=abc",
            "{headers:?}"
        );
        let (key, value, _, headers) = written(forms[3], chunk.record(0));
        assert_eq!((&*key, &*value), ("k", ""));
        for header in [
            "stage=write",
            "value-size=5000",
            "headers-dropped=2",
            "headers-size=9",
        ] {
            assert!(has(&headers, header), "{header} is not in {headers:?}");
        }
        assert!(
            headers
                .iter()
                .all(|header| header.starts_with("kafka-consumer.dev/"))
        );
    }

    #[test]
    fn a_long_key_is_replaced_last() {
        let long = vec![b'k'; 5000];
        let chunk = chunk(Some(&long), None, 5);
        let forms = forms(&chunk.record(0), Refusal::TooLarge);
        let (key, value, _, headers) = written(forms[1], chunk.record(0));
        assert_eq!((forms.len(), &*key, &*value), (2, "orders-3-7", "null"));
        assert!(has(&headers, "key-size=5000"), "{headers:?}");
    }

    #[test]
    fn a_tombstone_stays_a_tombstone_and_a_small_value_is_not_cut() {
        let tombstone = chunk(Some(b"k"), None, 5);
        let all = forms(&tombstone.record(0), Refusal::TooLarge);
        assert_eq!(all.len(), 2);
        assert_eq!(written(all[1], tombstone.record(0)).1, "null");
        let small = chunk(Some(b"k"), Some(b"value"), 5);
        let all = forms(&small.record(0), Refusal::TooLarge);
        assert_eq!(all.len(), 3);
        assert_eq!(written(all[1], small.record(0)).1, "");
    }

    #[test]
    fn a_refused_timestamp_becomes_the_present_and_is_kept_in_a_header() {
        let chunk = chunk(Some(b"k"), Some(b"v"), 5);
        let forms = forms(&chunk.record(0), Refusal::Timestamp);
        assert_eq!(forms.len(), 2);
        let (_, value, timestamp, headers) = written(forms[1], chunk.record(0));
        assert_eq!((&*value, timestamp), ("v", None));
        assert!(has(&headers, "timestamp-refused=5"), "{headers:?}");
    }

    #[test]
    fn a_record_without_a_key_gets_its_record_id_as_the_key() {
        let chunk = chunk(None, Some(b"v"), 5);
        let forms = forms(&chunk.record(0), Refusal::Record);
        let (key, value, timestamp, headers) = written(forms[1], chunk.record(0));
        assert_eq!((&*key, &*value, timestamp), ("orders-3-7", "v", Some(5)));
        assert!(has(&headers, "key-size=null"), "{headers:?}");
    }

    #[test]
    fn a_header_whose_name_cannot_be_written_is_dropped_and_counted() {
        let chunk = chunk(None, Some(b"v"), 5);
        let forms = forms(&chunk.record(0), Refusal::HeaderName);
        assert_eq!(forms.len(), 2);
        let (key, _, _, headers) = written(forms[1], chunk.record(0));
        assert_eq!((&*key, &*headers[0]), ("null", "trace=abc"));
        assert!(has(&headers, "headers-dropped=1"), "{headers:?}");
        assert!(!headers.iter().any(|header| header.contains('\u{fffd}')));
    }

    #[test]
    fn refusals_for_different_reasons_add_up() {
        let chunk = chunk(None, Some(b"value"), 5);
        let record = chunk.record(0);
        let refusals = [Refusal::Timestamp, Refusal::Record, Refusal::TooLarge];
        let form = Form::after_all(&refusals, &record).unwrap();
        let (key, value, timestamp, _) = written(form, record);
        assert_eq!((&*key, &*value, timestamp), ("orders-3-7", "", None));
    }
}
