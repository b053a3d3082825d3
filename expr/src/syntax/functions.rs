//! The functions, how they are called and with how many arguments.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Base64Decode,
    Base64Encode,
    B64Decode,
    B64Encode,
    Bool,
    Bytes,
    CharAt,
    Contains,
    Double,
    Dyn,
    EndsWith,
    IndexOf,
    Int,
    Join,
    LastIndexOf,
    LowerAscii,
    Matches,
    Replace,
    Size,
    Split,
    StartsWith,
    String,
    Substring,
    Trim,
    Type,
    Uint,
    UpperAscii,
}

/// Name, function, fewest and most arguments.
type Entry = (&'static str, Function, usize, usize);

/// Called as `f(a)`.
const GLOBAL: &[Entry] = &[
    ("b64decode", Function::B64Decode, 1, 1),
    ("b64encode", Function::B64Encode, 1, 1),
    ("base64.decode", Function::Base64Decode, 1, 1),
    ("base64.encode", Function::Base64Encode, 1, 1),
    ("bool", Function::Bool, 1, 1),
    ("bytes", Function::Bytes, 1, 1),
    ("double", Function::Double, 1, 1),
    ("dyn", Function::Dyn, 1, 1),
    ("int", Function::Int, 1, 1),
    ("matches", Function::Matches, 2, 2),
    ("size", Function::Size, 1, 1),
    ("string", Function::String, 1, 1),
    ("type", Function::Type, 1, 1),
    ("uint", Function::Uint, 1, 1),
];

/// Called as `a.f(b)`; the numbers leave out `a`.
const METHODS: &[Entry] = &[
    ("charAt", Function::CharAt, 1, 1),
    ("contains", Function::Contains, 1, 1),
    ("endsWith", Function::EndsWith, 1, 1),
    ("indexOf", Function::IndexOf, 1, 1),
    ("join", Function::Join, 0, 1),
    ("lastIndexOf", Function::LastIndexOf, 1, 1),
    ("lowerAscii", Function::LowerAscii, 0, 0),
    ("matches", Function::Matches, 1, 1),
    ("replace", Function::Replace, 2, 3),
    ("size", Function::Size, 0, 0),
    ("split", Function::Split, 1, 2),
    ("startsWith", Function::StartsWith, 1, 1),
    ("substring", Function::Substring, 1, 2),
    ("trim", Function::Trim, 0, 0),
    ("upperAscii", Function::UpperAscii, 0, 0),
];

impl Function {
    pub(crate) fn global(name: &str, arguments: usize) -> Result<Self, String> {
        find(GLOBAL, "function", name, arguments)
    }

    pub(crate) fn method(name: &str, arguments: usize) -> Result<Self, String> {
        find(METHODS, "method", name, arguments)
    }

    /// The name as a user writes it.
    pub(crate) fn name(self) -> &'static str {
        let entry = GLOBAL.iter().chain(METHODS).find(|entry| entry.1 == self);
        entry.map_or("function", |entry| entry.0)
    }
}

fn find(table: &[Entry], what: &str, name: &str, arguments: usize) -> Result<Function, String> {
    let Some((_, function, fewest, most)) = table.iter().find(|entry| entry.0 == name) else {
        let known: Vec<_> = table.iter().map(|entry| entry.0).collect();
        return Err(format!("unknown {what} {name:?}: has {}", known.join(", ")));
    };
    if (*fewest..=*most).contains(&arguments) {
        return Ok(*function);
    }
    let wanted = if fewest == most {
        fewest.to_string()
    } else {
        format!("{fewest} to {most}")
    };
    Err(format!(
        "{what} {name:?} takes {wanted} arguments, found {arguments}"
    ))
}
