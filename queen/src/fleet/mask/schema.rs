//! What fields an `Update` has, read once from the embedded descriptors of the contract.

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::collections::HashMap;
use std::sync::LazyLock;

/// The message that masks speak of.
pub const ROOT: &str = ".rbee.v1.Update";
/// No message of the contract is nested deeper than this; a recursive one would be cut here.
const DEPTH: usize = 6;

/// One field.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub number: u32,
    /// The message it holds; `None` for numbers, texts and maps, which are taken as a whole.
    pub message: Option<String>,
}

/// The fields of every message, by full name.
#[derive(Debug, Default)]
pub struct Schema {
    messages: HashMap<String, Vec<Field>>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    // The bytes are part of this program; a test reads them.
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap_or_default();
    let mut schema = Schema::default();
    for file in files.file {
        let package = format!(".{}", file.package());
        file.message_type.into_iter().for_each(|message| schema.add(&package, message));
    }
    schema
});

/// The contract.
pub fn schema() -> &'static Schema {
    &SCHEMA
}

impl Schema {
    fn add(&mut self, within: &str, message: DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        let is_map = |wanted: &str| {
            let entry = |nested: &DescriptorProto| format!("{name}.{}", nested.name()) == wanted;
            message.nested_type.iter().any(|nested| {
                entry(nested) && nested.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
            })
        };
        let fields = message.field.iter().map(|field| Field {
            name: field.name().to_owned(),
            number: u32::try_from(field.number()).unwrap_or(0),
            message: (field.r#type() == Type::Message && !is_map(field.type_name()))
                .then(|| field.type_name().to_owned()),
        });
        self.messages.insert(name.clone(), fields.collect());
        message.nested_type.into_iter().for_each(|nested| self.add(&name, nested));
    }

    /// A field of a message.
    pub fn field(&self, message: &str, name: &str) -> Option<&Field> {
        self.messages.get(message)?.iter().find(|field| field.name == name)
    }

    /// Every path that a mask may name.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(ROOT, "", DEPTH, &mut paths);
        paths
    }

    fn walk(&self, message: &str, before: &str, depth: usize, paths: &mut Vec<String>) {
        for field in self.messages.get(message).into_iter().flatten() {
            let path = format!("{before}{}", field.name);
            if let Some(message) = field.message.as_deref().filter(|_| depth > 1) {
                self.walk(message, &format!("{path}."), depth - 1, paths);
            }
            paths.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_an_update_are_known() {
        let paths = schema().paths();
        for path in ["workers", "workers.spec.model", "workers.stats.cpu_pct", "hives.gpus.uuid", "beats.sampled_at"] {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
        assert!(!paths.iter().any(|path| path.starts_with("workers.spec.labels.")), "a map is one field");
        let deepest = paths.iter().map(|path| path.split('.').count()).max();
        assert!(deepest < Some(DEPTH), "no path is cut: {deepest:?}");
    }
}
