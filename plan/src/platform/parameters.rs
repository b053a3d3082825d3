//! Parameters against the JSON schema of their class.

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::ResourceClass;
use kube::ResourceExt;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// The most errors that one message lists.
const SHOWN: usize = 5;

/// Checks parameters against their class. Values that hold placeholders are taken to fit until they are known.
///
/// # Errors
/// What does not fit, naming the field, what was found and what is allowed.
pub fn check(class: &ResourceClass, params: Option<&Map<String, Value>>) -> Result<(), Problem> {
    let empty = Map::new();
    let params = params.unwrap_or(&empty);
    let Some(schema) = &class.spec.parameters else {
        if params.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = params.keys().map(String::as_str).collect();
        return Err(invalid(format!(
            "params: found {}, but the class {} takes no parameters",
            names.join(", "),
            class.name_any()
        )));
    };
    let validator = compile(schema).map_err(invalid)?;
    let instance = Value::Object(params.clone());
    let errors: Vec<String> = validator
        .iter_errors(&instance)
        .filter(|error| !holds_placeholder(&instance, &error.instance_path().to_string()))
        .take(SHOWN)
        .map(|error| {
            let path = error.instance_path().to_string().replace('/', ".");
            format!("params{path}: {error}")
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(invalid(errors.join("; ")))
    }
}

/// Compiles the schema of a class. References to other documents are not followed.
///
/// # Errors
/// Why it is no schema.
pub fn compile(schema: &Map<String, Value>) -> Result<jsonschema::Validator, String> {
    jsonschema::options()
        .build(&Value::Object(schema.clone()))
        .map_err(|error| format!("parameters: not a JSON schema: {error}"))
}

fn invalid(message: String) -> Problem {
    Problem::invalid(Reason::InvalidParameters, message)
}

fn holds_placeholder(instance: &Value, pointer: &str) -> bool {
    instance
        .pointer(pointer)
        .and_then(Value::as_str)
        .is_some_and(|text| text.contains("${"))
}
