//! What expressions mean, what they read, and what they say when they fail.

use fairlead_expr::{EvalError, Expression, ParseError, Scope};
use serde_json::{Value, json};

fn scope() -> Scope {
    Scope::new()
        .with(
            "resources",
            json!({
                "db": {"host": "db.shop", "port": 5432, "password": "hunter2", "ready": true, "ratio": 0.5},
                "my-db": {"host": "other"},
                "list": [{"name": "a", "size": 3}, {"name": "b", "size": 30}],
            }),
        )
        .with("metadata", json!({"name": "shop", "namespace": "shop-staging", "labels": {"example.com/team": "boats"}}))
        .with("empty", json!(null))
        .with("big", json!(u64::MAX))
}

fn evaluate(source: &str) -> Result<Value, EvalError> {
    Expression::parse(source).expect(source).evaluate(&scope())
}

fn refused(source: &str) -> String {
    Expression::parse(source).expect_err(source).to_string()
}

fn failure(source: &str) -> String {
    evaluate(source).expect_err(source).to_string()
}

#[test]
fn values() {
    let cases = [
        ("1 + 2 * 3 - 4", json!(3)),
        ("(1 + 2) * 3", json!(9)),
        ("7 / 2", json!(3)),
        ("-7 % 3", json!(-1)),
        ("1.5 * 2.0", json!(3.0)),
        ("--5", json!(5)),
        ("-(5)", json!(-5)),
        ("- 9223372036854775808", json!(i64::MIN)),
        ("0x10 + 1", json!(17)),
        ("3u + 4u", json!(7)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("!!true", json!(true)),
        ("!true || !false", json!(true)),
        ("1 == 1.0", json!(true)),
        ("1u == 1", json!(true)),
        ("1 < 1.5 && 2u > 1.5", json!(true)),
        ("big > 9007199254740993.0", json!(true)),
        ("big == 18446744073709551615u", json!(true)),
        ("1 == '1'", json!(false)),
        ("null == empty", json!(true)),
        ("[1, 2.0] == [1.0, 2]", json!(true)),
        ("{'a': 1} == {'a': 1.0}", json!(true)),
        ("{'a': 1} != {'b': 1}", json!(true)),
        ("'a' < 'b' && b'a' < b'b' && false < true", json!(true)),
        ("2 in [1, 2]", json!(true)),
        ("'host' in resources.db", json!(true)),
        ("'x' in resources.db", json!(false)),
        ("resources.db.port > 5000 ? 'high' : 'low'", json!("high")),
        ("false ? 1 : false ? 2 : 3", json!(3)),
        ("[1, 2] + [3]", json!([1, 2, 3])),
        (
            "{'a': [1, {'b': null}], 2: true}",
            json!({"a": [1, {"b": null}], "2": true}),
        ),
        ("{1: 'x'}[1.0]", json!("x")),
        ("{true: 'x'}[true]", json!("x")),
        ("[1, 2, 3][1]", json!(2)),
        ("resources.list[0].name", json!("a")),
        ("resources.list[1]['size']", json!(30)),
        ("resources[\"my-db\"].host + '!'", json!("other!")),
        ("resources.`my-db`.host + '!'", json!("other!")),
        ("metadata.labels[\"example.com/team\"]", json!("boats")),
        ("resources.my-db.host", json!("other")),
        ("metadata.namespace", json!("shop-staging")),
        ("true || resources.nothing", json!(true)),
        ("resources.nothing || true", json!(true)),
        ("resources.nothing && false", json!(false)),
        ("b'abc'", json!("YWJj")),
        ("1 // one\n + 1", json!(2)),
    ];
    for (source, wanted) in cases {
        assert_eq!(evaluate(source), Ok(wanted), "{source}");
    }
}

#[test]
fn texts() {
    let cases = [
        (r#"'a\n\t\x41\u00e9\101\\'"#, json!("a\n\tAéA\\")),
        (r#"r'a\n'"#, json!("a\\n")),
        ("'''a'b\n'''", json!("a'b\n")),
        (
            "size('héé') + size([1]) + 'ab'.size() + size({'a': 1}) + size(b'abc')",
            json!(10),
        ),
        (
            "'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')",
            json!(true),
        ),
        ("'abc'.matches('^a.c$') && matches('abc', 'b')", json!(true)),
        ("'abc'.matches('^' + 'b')", json!(false)),
        (r"'a.b-c@example'.matches(r'^[\w.-]+@\w+$')", json!(true)),
        ("'AbÉ'.lowerAscii() + 'abé'.upperAscii()", json!("abÉABé")),
        (
            "'a.b.c'.replace('.', '-') + 'aaa'.replace('a', 'b', 2)",
            json!("a-b-cbba"),
        ),
        ("'a,b,c'.split(',')", json!(["a", "b", "c"])),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        ("'abc'.split('')", json!(["a", "b", "c"])),
        ("'abc'.split('', 2)", json!(["a", "bc"])),
        ("'abc'.split(',', 0)", json!([])),
        ("['a', 'b'].join('-') + ['a', 'b'].join()", json!("a-bab")),
        ("'  a '.trim()", json!("a")),
        (
            "'héllo'.substring(1, 3) + 'héllo'.substring(3)",
            json!("éllo"),
        ),
        ("'héllo'.indexOf('l')", json!(2)),
        ("'héllo'.lastIndexOf('l')", json!(3)),
        ("'abc'.indexOf('x')", json!(-1)),
        ("'abc'.charAt(1) + 'abc'.charAt(3)", json!("b")),
        (
            "string(1) + string(2.0) + string(2.5) + string(true) + string(b'x') + string('y')",
            json!("122.5truexy"),
        ),
        ("int('42') + int(3.9) + int(2u)", json!(47)),
        ("uint('3') + uint(4)", json!(7)),
        ("double('1.5') + double(1)", json!(2.5)),
        ("bool('true') && dyn(true)", json!(true)),
        ("type(1) + type('a') + type(null)", json!("intstringnull")),
        ("b64encode('abc') + b64decode('YWJj')", json!("YWJjabc")),
        ("b64decode('YWI')", json!("ab")),
        (
            "base64.encode(b'abc') + string(base64.decode('YWJj'))",
            json!("YWJjabc"),
        ),
    ];
    for (source, wanted) in cases {
        assert_eq!(evaluate(source), Ok(wanted), "{source}");
    }
}

#[test]
fn macros() {
    let cases = [
        (
            "has(resources.db.host) && !has(resources.db.hots)",
            json!(true),
        ),
        ("resources.list.map(x, x.name)", json!(["a", "b"])),
        ("resources.list.map(x, x.size > 5, x.name)", json!(["b"])),
        (
            "resources.list.filter(x, x.size > 5)",
            json!([{"name": "b", "size": 30}]),
        ),
        ("resources.list.all(x, x.size > 2)", json!(true)),
        ("resources.list.exists(x, x.name == 'b')", json!(true)),
        ("resources.list.exists_one(x, x.size > 2)", json!(false)),
        ("[1, 0, 2].exists(x, 2 / x == 2)", json!(true)),
        ("[0, 2].exists(x, 2 / x == 1)", json!(true)),
        ("[1, 2].all(x, [1, 2].exists(y, x == y))", json!(true)),
        ("[1].map(x, [2].map(x, x))", json!([[2]])),
        (
            "metadata.map(key, key)",
            json!(["labels", "name", "namespace"]),
        ),
    ];
    for (source, wanted) in cases {
        assert_eq!(evaluate(source), Ok(wanted), "{source}");
    }
}

#[test]
fn references_name_every_variable_that_may_be_read() {
    let cases: &[(&str, &[&str])] = &[
        ("resources.db.host", &["resources.db.host"]),
        ("resources.my-db.host", &["resources.my-db.host"]),
        (
            "resources['db'].host + metadata.name",
            &["resources.db.host", "metadata.name"],
        ),
        (
            "resources[metadata.name].host",
            &["resources", "metadata.name"],
        ),
        ("resources.list[0].name", &["resources.list"]),
        ("resources.db.host.size() > 1", &["resources.db.host"]),
        (
            "has(resources.db.host) ? resources.db.host : ''",
            &["resources.db.host"],
        ),
        (
            "resources.list.map(x, x.name + metadata.name)",
            &["resources.list", "metadata.name"],
        ),
        ("[1].map(resources, resources.db)", &[]),
        ("[1].map(x, x) == x", &["x"]),
        ("(a ? b.c : d).e", &["a", "b.c", "d"]),
        ("{a: b}", &["a", "b"]),
        (
            "size(a.b) in c || -d.e > f && !g",
            &["a.b", "c", "d.e", "f", "g"],
        ),
        ("base64.encode(a)", &["a"]),
        ("base64.host + base64[a]", &["base64.host", "base64", "a"]),
        ("a.b('x')", &[]),
    ];
    for (source, wanted) in cases {
        let Ok(expression) = Expression::parse(source) else {
            assert!(wanted.is_empty(), "{source}");
            continue;
        };
        let found: Vec<_> = expression
            .references()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(&found, wanted, "{source}");
    }
    let expression = Expression::parse("a.b.c").expect("a path");
    let path = &expression.references()[0];
    assert!(
        path.starts_with(&["a", "b"])
            && !path.starts_with(&["a", "c"])
            && !path.starts_with(&["a", "b", "c", "d"])
    );
}

#[test]
fn errors_say_what_exists() {
    let cases = [
        (
            "resource.db",
            "unknown name \"resource\": has big, empty, metadata, resources",
        ),
        (
            "resources.db.hots",
            "unknown name \"hots\" in resources.db: has host, password, port, ratio, ready",
        ),
        (
            "resources['dc']",
            "unknown name \"dc\" in resources: has db, list, my-db",
        ),
        (
            "resources.list[0].nam + ''",
            "unknown name \"nam\" in resources.list[0]: has name, size",
        ),
        (
            "resources.list.map(x, y)",
            "unknown name \"y\": has big, empty, metadata, resources, x",
        ),
        (
            "resources.db.host.x",
            "field \"x\" is not defined for string in `resources.db.host`",
        ),
        (
            "resources.list[2]",
            "index out of range in `resources.list[2]`",
        ),
        (
            "1 + 'a'",
            "+ is not defined for int and string in `1 + 'a'`",
        ),
        (
            "1 + 1.0",
            "+ is not defined for int and double in `1 + 1.0`",
        ),
        ("1 / 0", "division by zero in `1 / 0`"),
        (
            "9223372036854775807 + 1",
            "the number is out of range in `9223372036854775807 + 1`",
        ),
        ("int('x')", "failed to convert string to int in `int('x')`"),
        (
            "'a'.matches('(' + '')",
            "the pattern in `'a'.matches('(' + '')` is invalid or too large",
        ),
        (
            "{'a': 1, 'a': 2}",
            "a key occurs twice in `{'a': 1, 'a': 2}`",
        ),
        ("1 ? 2 : 3", "a condition is not defined for int in `1`"),
    ];
    for (source, wanted) in cases {
        assert_eq!(failure(source), wanted, "{source}");
    }
    let error = Expression::parse("1")
        .expect("a number")
        .evaluate_bool(&scope())
        .expect_err("no bool");
    assert_eq!(
        error.to_string(),
        "a condition is not defined for int in `1`"
    );
}

#[test]
fn errors_of_syntax_say_where() {
    assert_eq!(
        refused("1 +"),
        "failed to parse `1 +` at byte 3: expected an expression, found the end"
    );
    assert_eq!(
        refused("a b"),
        "failed to parse `a b` at byte 2: expected an operator or the end, found b"
    );
    assert_eq!(
        refused("'a"),
        "failed to parse `'a` at byte 0: the text has no closing quote"
    );
    assert_eq!(
        refused("a.matches('(')"),
        "failed to parse `a.matches('(')` at byte 10: the pattern is invalid or too large"
    );
    assert_eq!(
        refused("has(a)"),
        "failed to parse `has(a)` at byte 0: has() takes one field, such as has(a.b)"
    );
    assert!(refused("sizes(a)").contains("unknown function \"sizes\": has b64decode"));
    assert!(refused("a.sizes()").contains("unknown method \"sizes\": has charAt"));
    assert!(refused("size(a, b)").contains("takes 1 arguments, found 2"));
    assert!(refused("'a'.matches('a{9999}{9999}')").contains("too large"));
    assert_eq!(Expression::parse("  "), Err(ParseError::Empty));
}

#[test]
fn errors_never_hold_a_value() {
    let secret = [
        "resources.db.password.x",
        "resources[resources.db.password]",
        "{resources.db.password: 1}.x",
        "{resources.db.password: 1}[1]",
        "{resources.db.password: 1, 'hunter2': 2}",
        "resources.db.password + 1",
        "int(resources.db.password)",
        "base64.decode(resources.db.password + '*')",
        "'a'.matches(resources.db.password + '(')",
        "resources.list[resources.db.password]",
        "resources.db.password ? 1 : 2",
        "[resources.db.password].map(x, x.y)",
        "resources.db.password.substring(99)",
    ];
    for source in secret {
        let message = failure(source);
        let debugged = format!("{:?}", evaluate(source));
        let shown = message.replace(source, "") + &debugged.replace(source, "");
        assert!(!shown.contains("hunter2"), "{source}: {message}");
    }
    assert!(!format!("{:?}", scope()).contains("hunter2"));
}
