//! No text and no scope makes an evaluation panic, abort or run on, on a stack of 2 MiB, in a debug build.

use std::time::{Duration, Instant};

use fairlead_expr::{
    Document, EvalError, Expression, MAX_DEPTH, MAX_DOCUMENT_STEPS, MAX_EXPRESSION_BYTES,
    MAX_RESULT_BYTES, ParseError, Scope, Template,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Generous, since the machine may be busy; without bounds the cases below take hours or abort.
const LIMIT: Duration = Duration::from_secs(10);

fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(work)
        .expect("a thread starts");
    thread.join().expect("the thread does not panic")
}

fn run(source: &str, scope: &Scope) {
    let started = Instant::now();
    if let Ok(expression) = Expression::parse(source) {
        let evaluated = expression.evaluate(scope);
        let _ = expression.evaluate_bool(scope);
        if let Err(error) = evaluated {
            assert!(error.to_string().len() < 8192);
        }
    }
    if let Ok(template) = Template::parse(source) {
        let _ = template.render(scope);
        let _ = template.render_string(scope);
    }
    assert!(
        started.elapsed() < LIMIT,
        "{:.200} ran for {:?}",
        source,
        started.elapsed()
    );
}

#[test]
fn long_and_deep_shapes_end() {
    on_small_stack(|| {
        let scope = Scope::new().with("a", json!({"b": {"b": 1}}));
        for count in [10, 24, 100, 300, 500, 1000, 2000, 5000, 20_000, 100_000] {
            let shapes = [
                vec!["1"; count].join("+"),
                vec!["a"; count].join("&&"),
                vec!["1"; count].join("=="),
                format!("a{}", ".b".repeat(count)),
                format!("a{}", "[0]".repeat(count)),
                format!("a{}", ".size()".repeat(count)),
                format!("{}1{}", "[".repeat(count), "]".repeat(count)),
                format!("{}1{}", "(".repeat(count), ")".repeat(count)),
                format!("{}1{}", "{1:".repeat(count), "}".repeat(count)),
                format!("{}1{}", "size(".repeat(count), ")".repeat(count)),
                format!("{}1{}", "a[".repeat(count), "]".repeat(count)),
                format!("{}1{}", "[1].map(x,".repeat(count), ")".repeat(count)),
                format!("{}1", "true?1:".repeat(count)),
                format!("{}1", "true?".repeat(count)),
                format!("{}true", "!".repeat(count)),
                format!("{}a", "-".repeat(count)),
                format!("'a'.matches('{}')", "(".repeat(count)),
                format!("'a'.matches('{}{}')", "(".repeat(count), ")*".repeat(count)),
                "(".repeat(count),
                "\"".repeat(count),
                "${".repeat(count),
                format!("${{{}", "{".repeat(count)),
            ];
            for shape in shapes {
                run(&shape, &scope);
                run(&format!("${{{shape}}}"), &scope);
            }
        }
    });
}

#[test]
fn depth_and_length_are_refused_by_name() {
    let deep = |count: usize| format!("{}1{}", "[".repeat(count), "]".repeat(count));
    assert!(Expression::parse(&deep(MAX_DEPTH - 1)).is_ok());
    let error = Expression::parse(&deep(MAX_DEPTH)).expect_err("too deep");
    assert_eq!(
        error,
        ParseError::TooDeep {
            what: "the expression",
            limit: MAX_DEPTH
        }
    );
    let error = Expression::parse(&"a".repeat(MAX_EXPRESSION_BYTES + 1)).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "the expression has 1025 bytes, at most 1024 are allowed"
    );
    assert!(Expression::parse(&vec!["1"; 500].join("+")).is_ok());
    assert!(matches!(
        Expression::parse(&"[],".repeat(300)),
        Err(ParseError::Syntax { .. })
    ));
    let many = format!("[{}]", vec!["1"; 511].join(","));
    assert!(Expression::parse(&many).is_ok());
}

#[test]
fn an_expression_that_never_ends_is_stopped() {
    let numbers: Vec<u32> = (0..2000).collect();
    let scope = Scope::new()
        .with("l", json!(numbers))
        .with("t", json!("a".repeat(100_000)));
    let names = (0..10_000).map(|number| (format!("name-{number}"), json!(number)));
    let scope = scope.with("m", Value::Object(names.collect()));
    let hungry = [
        "l.all(a, l.all(b, l.all(c, l.all(d, a + b + c + d >= 0))))",
        "l.map(a, l.map(b, l))",
        "l.map(a, t + t)",
        "l.map(a, t.split(''))",
        "l.all(a, t.replace('a', t) != '')",
        "t.replace('a', t)",
        "t.replace('', t)",
        "l.all(a, t.matches('(a*)*b') == false)",
        "l.all(a, t.matches('(a|b)*' + string(a)) || true)",
        "l.exists(a, t.contains(t + 'b'))",
        "(l + l + l + l).map(a, (l + l + l + l).map(b, [a, b]))",
        "l.all(a, l == l)",
        "l.all(a, t == t)",
        "l.all(a, 3000 in l || true)",
        "l.exists(a, l.filter(b, b > a).map(c, c).size() > 5000) || true",
        "l.map(a, size(t))",
        "l.exists(a, l.exists(b, m.nothing))",
        "l.exists(a, m['noth' + 'ing'])",
        "l.exists(a, l.exists(b, 1 / 0 == 1))",
        "l.map(a, l.map(b, {t: 1}))",
        "l.map(a, l.map(b, t in m))",
        "l.all(a, l.all(b, bool(t) || true))",
        "l.all(a, t.matches('a{1,500}b') == false)",
        "l.all(a, t.matches('(a|aa|aaa)*a{1,99}b') == false)",
        "l.map(a, t.upperAscii().lowerAscii())",
        "l.map(a, b64encode(t))",
    ];
    for source in hungry {
        let started = Instant::now();
        let error = Expression::parse(source)
            .expect(source)
            .evaluate(&scope)
            .expect_err(source);
        assert!(error.is_exhausted(), "{source}: {error}");
        assert!(
            started.elapsed() < LIMIT,
            "{source} ran for {:?}",
            started.elapsed()
        );
    }
    // Absorbing errors does not absorb a bound.
    let absorbed = "l.all(a, l.all(b, l.all(c, l.all(d, a >= 0)))) || true";
    assert!(
        Expression::parse(absorbed)
            .expect("an expression")
            .evaluate(&scope)
            .is_err()
    );
    // What people write is far from the bounds.
    let usual = "l.filter(a, a % 2 == 0).map(a, 'item-' + string(a)).join(',').size() > 0";
    assert_eq!(
        Expression::parse(usual)
            .expect("an expression")
            .evaluate(&scope),
        Ok(json!(true))
    );
}

#[test]
fn results_are_bounded() {
    let scope = Scope::new().with("t", json!("a".repeat(MAX_RESULT_BYTES / 4)));
    let expression = Expression::parse("[t, t, t, t, t]").expect("an expression");
    assert!(
        expression
            .evaluate(&scope)
            .expect_err("too large")
            .is_exhausted()
    );
    let document = Document::parse(&json!(["${t}", "${t}", "${t}", "${t}"])).expect("a document");
    assert!(
        document
            .render(&scope)
            .expect_err("too large")
            .is_exhausted()
    );
    let template = Template::parse(&"${t}".repeat(10)).expect("a template");
    assert!(
        template
            .render_string(&scope)
            .expect_err("too large")
            .is_exhausted()
    );
    let items: Vec<u32> = (0..5000).collect();
    let scope = Scope::new().with("l", json!(items));
    let busy: Vec<_> = (0..200)
        .map(|_| "${l.all(x, x >= 0 && x < 5000)}")
        .collect();
    let error = Document::parse(&json!(busy))
        .expect("a document")
        .render(&scope)
        .expect_err("too many steps");
    assert!(
        error
            .to_string()
            .contains(&format!("more than the allowed {MAX_DOCUMENT_STEPS} steps")),
        "{error}"
    );
    let mut deep = json!(1);
    for _ in 0..300 {
        deep = json!([deep]);
    }
    on_small_stack(move || {
        let scope = Scope::new().with("d", deep);
        for source in ["d", "d == d", "string(d)", "d in [d]"] {
            let error = Expression::parse(source)
                .expect(source)
                .evaluate(&scope)
                .expect_err(source);
            assert!(
                matches!(error, EvalError::Exhausted { .. } | EvalError::Types { .. }),
                "{error}"
            );
        }
    });
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9=+/]{0,40}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..8)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Text made of the language's own words, so that much of it parses.
fn likely() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "x",
        "0",
        "1",
        "2u",
        "1.5",
        "'a'",
        "b'a'",
        "\"${\"",
        "true",
        "null",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        " in ",
        "size(",
        "has(a.b)",
        ".size()",
        ".map(x,",
        ".filter(x,",
        ".all(x,",
        ".exists(x,",
        ".split(",
        ".join(",
        ".replace(",
        ".matches(",
        "string(",
        "int(",
        "double(",
        "b64encode(",
        "b64decode(",
        "a.b",
        "a[",
        "${",
        "$${",
        ".substring(",
        ".trim()",
    ]);
    prop::collection::vec(words, 0..120).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_ends(source in prop::string::string_regex("(?s).{0,1400}").expect("a pattern"), a in any_json()) {
        on_small_stack(move || run(&source, &Scope::new().with("a", a)));
    }

    #[test]
    fn any_likely_text_ends(source in likely(), a in any_json(), b in any_json()) {
        on_small_stack(move || run(&source, &Scope::new().with("a", a).with("b", b)));
    }

    /// Every value that is read lies at or under a reference: with nothing else in the scope the outcome is the same.
    #[test]
    fn references_suffice(source in likely(), a in any_json(), b in any_json()) {
        let Ok(expression) = Expression::parse(&source) else { return Ok(()) };
        let names: Vec<_> = expression.references().iter().map(|path| path.segments()[0].clone()).collect();
        let full = Scope::new().with("a", a.clone()).with("b", b.clone());
        let mut least = Scope::new();
        for (name, value) in [("a", a), ("b", b)] {
            if names.iter().any(|found| found == name) {
                least = least.with(name, value);
            }
        }
        let equal = match (expression.evaluate(&full), expression.evaluate(&least)) {
            (Ok(left), Ok(right)) => left == right,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        prop_assert!(equal, "{source}");
    }

    #[test]
    fn any_document_renders_or_fails(value in any_json(), a in any_json()) {
        let scope = Scope::new().with("a", a);
        if let Ok(document) = Document::parse(&value) && document.is_literal() && !value.to_string().contains("${") {
            prop_assert_eq!(document.render(&scope), Ok(value));
        }
    }
}
