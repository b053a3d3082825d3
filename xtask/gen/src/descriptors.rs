//! The shape of the messages that the proxy reads over xDS: cut from the descriptors that the envoy-types crate ships.
//!
//! A message that is not in [`KEPT`] stands as an empty one, so that a field of it keeps its name: the reader then says which
//! field is not supported, and the proxy does not carry all of Envoy's API.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions,
};
use protox::Compiler;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, IncludeFileResolver};

use crate::kept::KEPT;

/// A message that the crate leaves out: its package, its name, and its fields in the order of their numbers, by type.
struct LeftOut {
    package: &'static str,
    name: &'static str,
    /// A field without a type is a text.
    fields: &'static [(&'static str, Option<&'static str>)],
    /// The files of `google.protobuf` that the types are in.
    needs: &'static [&'static str],
}

/// Peak EWMA of Envoy's contrib extensions, and what says a type that others need not know.
const LEFT_OUT: [LeftOut; 2] = [
    LeftOut {
        package: "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha",
        name: "PeakEwma",
        fields: &[
            ("decay_time", Some(".google.protobuf.Duration")),
            ("aggregation_interval", Some(".google.protobuf.Duration")),
            ("max_samples_per_host", Some(".google.protobuf.UInt32Value")),
            ("default_rtt", Some(".google.protobuf.Duration")),
            ("penalty_value", Some(".google.protobuf.DoubleValue")),
        ],
        needs: &["duration", "wrappers"],
    },
    LeftOut {
        package: "xds.type.v3",
        name: "TypedStruct",
        fields: &[
            ("type_url", None),
            ("value", Some(".google.protobuf.Struct")),
        ],
        needs: &["struct"],
    },
];

/// The messages that are ours, below `xds/proto`.
const OWN: [&str; 4] = [
    "fairlead/mesh/v1/egress.proto",
    "fairlead/mesh/v1/filters.proto",
    "fairlead/mesh/v1/options.proto",
    "fairlead/mesh/v1/tap.proto",
];

/// What stands for a message that is not kept.
const EMPTY: &str = ".google.protobuf.Empty";

/// The descriptors, as bytes of a `FileDescriptorSet`.
pub(crate) fn bytes() -> Result<Vec<u8>, Box<dyn Error>> {
    let path = folder()?.join("src/generated/types.bin");
    let all = FileDescriptorSet::decode(std::fs::read(path)?.as_slice())?;
    let mut cut = Cut::new().cut(all);
    cut.file.extend(LEFT_OUT.iter().map(left_out));
    add_own(&mut cut)?;
    Ok(cut.encode_to_vec())
}

/// Adds the messages that are ours.
fn add_own(cut: &mut FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut files = ChainFileResolver::new();
    files.add(IncludeFileResolver::new("xds/proto".into()));
    files.add(DescriptorSetFileResolver::new(cut.clone()));
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.open_files(OWN)?;
    cut.file.extend(compiler.file_descriptor_set().file);
    Ok(())
}

fn left_out(own: &LeftOut) -> FileDescriptorProto {
    let field = |(number, (name, kind)): (i32, &(&str, Option<&str>))| FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind.map_or(Type::String, |_| Type::Message) as i32),
        type_name: kind.map(str::to_owned),
        ..FieldDescriptorProto::default()
    };
    let needs = own.needs.iter();
    FileDescriptorProto {
        name: Some(format!("left_out/{}.proto", own.name)),
        package: Some(own.package.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: needs
            .map(|name| format!("google/protobuf/{name}.proto"))
            .collect(),
        message_type: vec![DescriptorProto {
            name: Some(own.name.to_owned()),
            field: (1..).zip(own.fields).map(field).collect(),
            ..DescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    }
}

/// Where cargo keeps the envoy-types crate that the lock file pins.
fn folder() -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("envoy-types is not among the dependencies")?;
    Ok(PathBuf::from(manifest).with_file_name(""))
}

struct Cut {
    kept: BTreeSet<String>,
}

impl Cut {
    fn new() -> Self {
        let kept = KEPT
            .iter()
            .flat_map(|(package, names)| names.iter().map(move |name| format!(".{package}.{name}")))
            .collect();
        Self { kept }
    }

    fn cut(&self, all: FileDescriptorSet) -> FileDescriptorSet {
        let files: Vec<FileDescriptorProto> =
            all.file.into_iter().map(|file| self.file(file)).collect();
        let homes = homes(&files);
        let mut needed = BTreeSet::new();
        for file in &files {
            for message in &file.message_type {
                types_of(message, &mut needed);
            }
        }
        let mut files: Vec<FileDescriptorProto> = files
            .into_iter()
            .map(|mut file| {
                let prefix = format!(".{}", file.package());
                file.enum_type
                    .retain(|own| needed.contains(&format!("{prefix}.{}", own.name())));
                for message in &mut file.message_type {
                    keep_enums(message, &prefix, &needed);
                }
                file
            })
            .filter(|file| !file.message_type.is_empty() || !file.enum_type.is_empty())
            .collect();
        for file in &mut files {
            let mut types = BTreeSet::new();
            for message in &file.message_type {
                types_of(message, &mut types);
            }
            let own = file.name().to_owned();
            let homes: BTreeSet<String> = types
                .iter()
                .filter_map(|name| homes.get(name))
                .filter(|home| **home != own)
                .cloned()
                .collect();
            file.dependency = homes.into_iter().collect();
        }
        FileDescriptorSet { file: files }
    }

    fn file(&self, file: FileDescriptorProto) -> FileDescriptorProto {
        let prefix = format!(".{}", file.package());
        FileDescriptorProto {
            message_type: file
                .message_type
                .into_iter()
                .filter_map(|message| self.message(message, &prefix))
                .collect(),
            name: file.name,
            package: file.package,
            syntax: file.syntax,
            enum_type: file.enum_type.into_iter().map(plain_enum).collect(),
            ..FileDescriptorProto::default()
        }
    }

    /// The message when it, or one within it, is kept.
    fn message(&self, message: DescriptorProto, prefix: &str) -> Option<DescriptorProto> {
        let name = format!("{prefix}.{}", message.name());
        let is_kept = self.kept.contains(&name);
        let is_entry =
            |own: &DescriptorProto| own.options.as_ref().is_some_and(MessageOptions::map_entry);
        let within: Vec<DescriptorProto> = message
            .nested_type
            .into_iter()
            .filter_map(|own| {
                if is_entry(&own) {
                    return is_kept.then(|| DescriptorProto {
                        field: own
                            .field
                            .into_iter()
                            .map(|field| self.field(field, &[]))
                            .collect(),
                        options: Some(MessageOptions {
                            map_entry: Some(true),
                            ..MessageOptions::default()
                        }),
                        name: own.name,
                        ..DescriptorProto::default()
                    });
                }
                self.message(own, &name)
            })
            .collect();
        if !is_kept && within.is_empty() {
            return None;
        }
        let entries: Vec<String> = within
            .iter()
            .filter(|own| is_entry(own))
            .map(|own| format!("{name}.{}", own.name()))
            .collect();
        let (field, oneof_decl) = if is_kept {
            let fields = message
                .field
                .into_iter()
                .map(|field| self.field(field, &entries))
                .collect();
            let oneofs = message
                .oneof_decl
                .into_iter()
                .map(|mut own| {
                    own.options = None;
                    own
                })
                .collect();
            (fields, oneofs)
        } else {
            (Vec::new(), Vec::new())
        };
        Some(DescriptorProto {
            name: message.name,
            field,
            oneof_decl,
            nested_type: within,
            enum_type: message.enum_type.into_iter().map(plain_enum).collect(),
            ..DescriptorProto::default()
        })
    }

    fn field(&self, field: FieldDescriptorProto, entries: &[String]) -> FieldDescriptorProto {
        let is_known = |name: &String| self.kept.contains(name) || entries.contains(name);
        // An enumeration within a message that is not kept is gone with it.
        let is_gone = |name: &str| {
            name.rsplit_once('.').is_some_and(|(outer, _)| {
                let last = outer.rsplit('.').next().unwrap_or_default();
                last.starts_with(char::is_uppercase) && !self.kept.contains(outer)
            })
        };
        let (kind, type_name) = match (field.r#type(), &field.type_name) {
            (Type::Message, Some(name)) if !is_known(name) => {
                (Type::Message, Some(EMPTY.to_owned()))
            }
            (Type::Enum, Some(name)) if is_gone(name) => (Type::Int32, None),
            (kind, name) => (kind, name.clone()),
        };
        FieldDescriptorProto {
            name: field.name.clone(),
            number: field.number,
            label: Some(field.label.unwrap_or(Label::Optional as i32)),
            r#type: Some(kind as i32),
            type_name,
            oneof_index: field.oneof_index,
            proto3_optional: field.proto3_optional,
            ..FieldDescriptorProto::default()
        }
    }
}

/// An enumeration without its options.
fn plain_enum(mut own: EnumDescriptorProto) -> EnumDescriptorProto {
    let aliases = own.options.as_ref().and_then(|options| options.allow_alias);
    own.options = aliases.map(|allow| prost_reflect::prost_types::EnumOptions {
        allow_alias: Some(allow),
        ..Default::default()
    });
    for value in &mut own.value {
        value.options = None;
    }
    own
}

/// The types that the fields of a message have.
fn types_of(message: &DescriptorProto, types: &mut BTreeSet<String>) {
    types.extend(
        message
            .field
            .iter()
            .filter_map(|field| field.type_name.clone()),
    );
    for own in &message.nested_type {
        types_of(own, types);
    }
}

fn keep_enums(message: &mut DescriptorProto, prefix: &str, needed: &BTreeSet<String>) {
    let prefix = format!("{prefix}.{}", message.name());
    message
        .enum_type
        .retain(|own| needed.contains(&format!("{prefix}.{}", own.name())));
    for own in &mut message.nested_type {
        keep_enums(own, &prefix, needed);
    }
}

/// The file that each type is in.
fn homes(files: &[FileDescriptorProto]) -> BTreeMap<String, String> {
    fn note(
        homes: &mut BTreeMap<String, String>,
        message: &DescriptorProto,
        prefix: &str,
        file: &str,
    ) {
        let name = format!("{prefix}.{}", message.name());
        for own in &message.nested_type {
            note(homes, own, &name, file);
        }
        for own in &message.enum_type {
            homes.insert(format!("{name}.{}", own.name()), file.to_owned());
        }
        homes.insert(name, file.to_owned());
    }
    let mut homes = BTreeMap::new();
    for file in files {
        let prefix = format!(".{}", file.package());
        for message in &file.message_type {
            note(&mut homes, message, &prefix, file.name());
        }
        for own in &file.enum_type {
            homes.insert(format!("{prefix}.{}", own.name()), file.name().to_owned());
        }
    }
    homes
}
