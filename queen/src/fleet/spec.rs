//! What a worker is: the whole as it travels, and beside it no more than what questions look at. A queen holds as many of
//! these as there are workers.

use bytes::Bytes;
use prost::Message;
use proto::WorkerSpec;

/// A worker's spec. Equal when everything that it says is.
#[derive(Debug, Default)]
pub struct Spec {
    /// `hive/group/instance`.
    name: Box<str>,
    /// How long the first two of these are.
    lengths: (u32, u32),
    /// What its model is called.
    pub model: Option<Box<str>>,
    /// What else it is called.
    pub model_names: Box<[Box<str>]>,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// The GPUs that it was given.
    pub gpu_uuids: Box<[Box<str>]>,
    /// By its hive's clock.
    pub start_time: Option<prost_types::Timestamp>,
    bytes: Bytes,
}

impl Spec {
    /// Of what came over the wire.
    pub fn of(spec: &WorkerSpec) -> Self {
        let boxed = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        let labels = spec.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
        Self {
            name: format!("{}/{}/{}", spec.hive, spec.group, spec.instance).into(),
            lengths: (spec.hive.len() as u32, spec.group.len() as u32),
            model: spec.model.as_deref().map(Into::into),
            model_names: boxed(&spec.model_names),
            labels,
            gpu_uuids: boxed(&spec.gpu_uuids),
            start_time: spec.start_time,
            bytes: Bytes::from(spec.encode_to_vec()),
        }
    }

    /// `hive/group/instance`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its hive.
    pub fn hive(&self) -> &str {
        &self.name[..self.lengths.0 as usize]
    }

    /// Its group.
    pub fn group(&self) -> &str {
        let begin = self.lengths.0 as usize + 1;
        &self.name[begin..begin + self.lengths.1 as usize]
    }

    /// Its name within the group.
    pub fn instance(&self) -> &str {
        &self.name[self.lengths.0 as usize + self.lengths.1 as usize + 2..]
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }

    /// Every name that its model goes by.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.model.as_deref().into_iter().chain(self.model_names.iter().map(AsRef::as_ref))
    }

    /// The whole on the wire.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole.
    pub fn whole(&self) -> WorkerSpec {
        // These bytes were written by `of`.
        WorkerSpec::decode(self.bytes.clone()).unwrap_or_default()
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        // Labels are written in any order.
        self.bytes == other.bytes || self.whole() == other.whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_whole_says() {
        let whole = WorkerSpec {
            hive: "box".into(),
            group: "llm".into(),
            instance: "8080".into(),
            pid: 7,
            model: Some("a".into()),
            model_names: vec!["b".into(), "c".into()],
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
            gpu_uuids: vec!["GPU-0".into()],
            ..WorkerSpec::default()
        };
        let spec = Spec::of(&whole);
        assert_eq!(spec.whole(), whole);
        assert_eq!((spec.name(), spec.hive(), spec.group(), spec.instance()), ("box/llm/8080", "box", "llm", "8080"));
        assert_eq!(spec.models().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((spec.label("tier"), spec.label("other")), (Some("gold"), None));
        assert_eq!(&*spec.gpu_uuids[0], "GPU-0");
        let empty = Spec::of(&WorkerSpec::default());
        assert_eq!((empty.hive(), empty.group(), empty.instance(), empty.models().count()), ("", "", "", 0));
    }

    #[test]
    fn labels_in_another_order_are_the_same_spec() {
        let labels = |order: &mut dyn Iterator<Item = u32>| order.map(|n| (n.to_string(), String::new())).collect();
        let spec = |labels| Spec::of(&WorkerSpec { labels, ..WorkerSpec::default() });
        let there = spec(labels(&mut (0..20)));
        // Maps of the same labels are walked in different orders.
        assert!((0..20).all(|_| spec(labels(&mut (0..20).rev())) == there));
        assert!(spec(labels(&mut (0..19))) != there);
    }
}
