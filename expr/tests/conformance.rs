//! The same expressions mean the same as in the general CEL crate, which is too hungry to run on foreign text.

use fairlead_expr::{Expression, Scope};
use serde_json::{Value, json};

const SOURCES: &[&str] = &[
    "1 + 2 * 3 % 2 - 4 / 2",
    "-5 + 3 * -2",
    "1 - 2 - 3",
    "2 * 3 / 4 * 5",
    "true && false || true",
    "true || false && false",
    "!true == false",
    "1 < 2 == true",
    "1 + 1 == 2 && 2 * 2 != 5",
    "a.n > 1 ? a.t + '!' : 'no'",
    "true ? false ? 1 : 2 : 3",
    "[1, 2, 3].map(x, x * 2)",
    "[1, 2, 3].filter(x, x > 1)",
    "[1, 2, 3].map(x, x > 1, x * 10)",
    "[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2)",
    "[1, 2, 2].exists_one(x, x == 2)",
    "[1, 2].map(x, [1, 2].map(y, x + y))",
    "{'k': [1, 2]}.k[1]",
    "{'k': 1}['k'] + {'l': [1]}.l[0]",
    "'a' + \"b\" + '\\n' + r'\\n'",
    "size('abc') + size([1, 2]) + 'abcd'.size()",
    "'abc'.contains('b') && 'abc'.startsWith('a') && !'abc'.endsWith('b')",
    "a.t.matches('^he.*o$')",
    "2 in [1, 2] && 'n' in a && !(3 in [1])",
    "has(a.t) && !has(a.u)",
    "string(1) + string(2.5)",
    "int('7') + int(2.9)",
    "double('1.5') + 1.0",
    "1.5 < 2.5 && 1.0 / 2.0 == 0.5",
    "[1] + [2, 3]",
    "{'a': 1, 'b': [true, null]}",
    "1u + 2u",
    "1 / 0",
    "a.u",
    "1 + 'a'",
    "9223372036854775807 + 1",
    "a.l[7]",
    "'x'.nope()",
    "1 +",
    "(1",
    "[1, 2",
    "{1}",
    "a..b",
    "1 2",
    "'a",
    "f(",
];

fn general(source: &str, a: &Value) -> Option<Value> {
    let program = cel::Program::compile(source).ok()?;
    let mut context = cel::Context::default();
    context.add_variable("a", a).ok()?;
    program.execute(&context).ok()?.json().ok()
}

#[test]
fn agrees_with_the_general_crate() {
    let a = json!({"n": 2, "t": "hello", "l": [1, 2]});
    let scope = Scope::new().with("a", a.clone());
    for source in SOURCES {
        let own = Expression::parse(source)
            .ok()
            .and_then(|expression| expression.evaluate(&scope).ok());
        assert_eq!(own, general(source, &a), "{source}");
    }
}
