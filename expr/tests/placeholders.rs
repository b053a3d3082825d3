//! Templates and documents.

use fairlead_expr::{Document, EvalError, MAX_TEMPLATE_BYTES, ParseError, Scope, Template};
use serde_json::{Value, json};

fn scope() -> Scope {
    Scope::new().with(
        "a",
        json!({"n": 1, "t": "x", "b": true, "l": [1, "y"], "o": {"k": 1.5}, "z": null, "x-y": 2}),
    )
}

fn render(text: &str) -> Result<Value, EvalError> {
    Template::parse(text).expect(text).render(&scope())
}

#[test]
fn templates_render() {
    let cases = [
        ("", json!("")),
        ("plain $ {text} $$", json!("plain $ {text} $$")),
        ("${a.n}", json!(1)),
        ("${ a.l }", json!([1, "y"])),
        ("${a.z}", json!(null)),
        ("${a.x-y}", json!(2)),
        (
            "n=${a.n} t=${a.t} b=${a.b} l=${a.l} o=${a.o}",
            json!("n=1 t=x b=true l=[1,\"y\"] o={\"k\":1.5}"),
        ),
        ("$${a.n} ${a.n}", json!("${a.n} 1")),
        ("$$${a.n}", json!("$${a.n}")),
        ("${{'}': '{'}['}']}!", json!("{!")),
        ("${'}'}${\"}\"}${r'\\'}${'\\'}'}", json!("}}\\'}")),
        ("${'''}'''}.", json!("}.")),
        ("é${a.t}é", json!("éxé")),
    ];
    for (text, wanted) in cases {
        assert_eq!(render(text), Ok(wanted), "{text}");
    }
    let template = Template::parse("${a.z}").expect("a template");
    let error = template
        .render_string(&scope())
        .expect_err("null has no text");
    assert_eq!(error.to_string(), "failed to convert null to text in `a.z`");
    assert_eq!(render("x${a.z}").expect_err("null has no text"), error);
}

#[test]
fn templates_tell_what_they_are() {
    let literal = Template::parse("$${a}").expect("a template");
    assert!(literal.is_literal() && literal.single().is_none() && literal.references().is_empty());
    let single = Template::parse("${a.n}").expect("a template");
    assert_eq!(
        single.single().map(|expression| expression.source()),
        Some("a.n")
    );
    let mixed = Template::parse("${a.n}/${a.t}/${a.n}").expect("a template");
    assert!(mixed.single().is_none());
    let found: Vec<_> = mixed.references().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["a.n", "a.t"]);
}

#[test]
fn wrong_templates_are_refused() {
    assert_eq!(
        Template::parse("x${a"),
        Err(ParseError::Unclosed { offset: 1 })
    );
    assert_eq!(
        Template::parse("${'a}"),
        Err(ParseError::Unclosed { offset: 0 })
    );
    assert_eq!(Template::parse("${}"), Err(ParseError::Empty));
    assert!(matches!(
        Template::parse(&"a".repeat(MAX_TEMPLATE_BYTES + 1)),
        Err(ParseError::TooLong { .. })
    ));
    assert!(matches!(
        Template::parse(&"${a}".repeat(10_000)),
        Err(ParseError::TooMany { .. })
    ));
    assert!(matches!(
        Template::parse(&"-${a}".repeat(10_000)),
        Err(ParseError::TooMany { .. })
    ));
}

#[test]
fn documents_render_every_text() {
    let document = json!({
        "kind": "Thing",
        "spec": {"replicas": "${a.n}", "${a.n}": "kept", "list": ["$${x}", {"text": "<${a.t}>"}], "none": null},
        "metadata": {"annotations": {"example.com/owner": "${a.t}"}},
    });
    let document = Document::parse(&document).expect("a document");
    let wanted = json!({
        "kind": "Thing",
        "spec": {"replicas": 1, "${a.n}": "kept", "list": ["${x}", {"text": "<x>"}], "none": null},
        "metadata": {"annotations": {"example.com/owner": "x"}},
    });
    assert_eq!(document.render(&scope()), Ok(wanted));
    let mut found: Vec<_> = document
        .references()
        .iter()
        .map(|(field, path)| format!("{field} reads {path}"))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "metadata.annotations[example.com/owner] reads a.t",
            "spec.list[1].text reads a.t",
            "spec.replicas reads a.n",
        ]
    );
}

#[test]
fn document_errors_name_the_field() {
    let wrong = json!({"spec": {"containers": [{"image": "${a.}"}]}});
    let error = Document::parse(&wrong).expect_err("no expression");
    assert_eq!(error.field(), Some("spec.containers[0].image"));
    let unknown = json!({"spec": {"ok": "${a.n}", "containers": [{"image": "${a.m}"}]}});
    let error = Document::parse(&unknown)
        .expect("a document")
        .render(&scope())
        .expect_err("unknown name");
    assert_eq!(
        error.to_string(),
        "spec.containers[0].image: unknown name \"m\" in a: has b, l, n, o, t, x-y, z"
    );
    let error = Document::parse(&json!("${")).expect_err("unclosed");
    assert_eq!(error.field(), Some("."));
    let mut deep = json!("${a.n}");
    for _ in 0..200 {
        deep = json!([deep]);
    }
    assert!(
        Document::parse(&deep)
            .expect_err("too deep")
            .to_string()
            .contains("nests deeper")
    );
}

#[test]
fn a_long_text_without_placeholders_is_no_template() {
    let long = json!({"data": {"file": "a".repeat(MAX_TEMPLATE_BYTES * 4)}});
    let document = Document::parse(&long).expect("a document");
    assert!(document.is_literal());
    assert_eq!(document.render(&Scope::new()), Ok(long));
}
