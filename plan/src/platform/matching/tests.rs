//! The order of candidates is total, whatever the definitions and whatever order they come in.

use super::*;
use fairlead_crds::platform::Driver;
use proptest::prelude::*;

fn definition(name: &str, criteria: Vec<Criterion>) -> Arc<ResourceDefinition> {
    let spec = ResourceDefinitionSpec {
        type_: "postgres".to_owned(),
        driver: Driver::Static,
        criteria,
        requires: Vec::new(),
        generated: Vec::new(),
        manifests: Vec::new(),
        ready_when: Vec::new(),
        outputs: Vec::new(),
    };
    Arc::new(ResourceDefinition::new(name, spec))
}

fn request() -> Request {
    Request {
        type_: "postgres".to_owned(),
        class: "default".to_owned(),
        id: "catalog.db".to_owned(),
        application: "shop".to_owned(),
        environment: "production".to_owned(),
        environment_type: "production".to_owned(),
    }
}

fn name_of(choice: &Choice) -> String {
    match choice {
        Choice::One(definition) => definition.name_any(),
        Choice::None => "-".to_owned(),
        Choice::Ambiguous(names) => names.join("+"),
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_more_specific_field_wins_over_several_less_specific_ones() {
    let by_id = definition(
        "by-id",
        vec![Criterion {
            id: some("catalog.db"),
            ..Criterion::default()
        }],
    );
    let by_all_else = definition(
        "by-all-else",
        vec![Criterion {
            environment: some("production"),
            application: some("shop"),
            environment_type: some("production"),
            ..Criterion::default()
        }],
    );
    assert_eq!(name_of(&choose(&[by_all_else, by_id], &request())), "by-id");
}

#[test]
fn a_criterion_for_another_class_or_id_falls_back_to_the_general_one() {
    let other_id = definition(
        "other-id",
        vec![Criterion {
            id: some("cart.db"),
            application: some("shop"),
            ..Criterion::default()
        }],
    );
    let sensitive = definition(
        "sensitive",
        vec![Criterion {
            class: some("sensitive"),
            id: some("catalog.db"),
            ..Criterion::default()
        }],
    );
    let general = definition("general", vec![Criterion::default()]);
    assert_eq!(
        name_of(&choose(&[other_id, sensitive, general], &request())),
        "general"
    );
}

#[test]
fn a_class_is_never_served_by_a_criterion_that_does_not_name_it() {
    let general = definition("general", vec![Criterion::default()]);
    let asked = Request {
        class: "sensitive".to_owned(),
        ..request()
    };
    assert_eq!(name_of(&choose(&[general], &asked)), "-");
}

#[test]
fn two_equal_criteria_are_ambiguous_and_both_are_named() {
    let definitions = [
        definition("b", vec![Criterion::default()]),
        definition(
            "a",
            vec![Criterion {
                class: some("default"),
                ..Criterion::default()
            }],
        ),
    ];
    assert_eq!(name_of(&choose(&definitions, &request())), "a+b");
    assert_eq!(
        conflict(&definitions[0].spec, &definitions[1].spec),
        Some((0, 0))
    );
}

#[test]
fn explain_tells_the_field_that_differs() {
    let other = definition(
        "other",
        vec![Criterion {
            application: some("bank"),
            ..Criterion::default()
        }],
    );
    let candidates = explain(&[other], &request());
    let expected = Verdict::Differs {
        field: "application",
        wanted: "bank".to_owned(),
        found: "shop".to_owned(),
    };
    assert_eq!(candidates[0].verdict, expected);
}

fn field(values: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    proptest::option::of(proptest::sample::select(values).prop_map(str::to_owned))
}

prop_compose! {
    fn any_criterion()(
        class in field(&["default", "sensitive"]),
        id in field(&["catalog.db", "cart.db"]),
        environment in field(&["production", "staging"]),
        application in field(&["shop", "bank"]),
        environment_type in field(&["production", "development"]),
    ) -> Criterion {
        Criterion { class, id, environment, application, environment_type }
    }
}

proptest! {
    #[test]
    fn the_choice_does_not_depend_on_order_and_is_one_unless_criteria_conflict(
        sets in proptest::collection::vec(proptest::collection::vec(any_criterion(), 1..4), 1..6),
        rotation in 0usize..6,
    ) {
        let definitions: Vec<_> = sets.into_iter().enumerate().map(|(i, set)| definition(&format!("d{i}"), set)).collect();
        let mut rotated = definitions.clone();
        rotated.rotate_left(rotation % definitions.len());
        let chosen = choose(&definitions, &request());
        prop_assert_eq!(name_of(&chosen), name_of(&choose(&rotated, &request())));
        if let Choice::Ambiguous(names) = &chosen {
            let pick = |name: &String| definitions.iter().find(|definition| definition.name_any() == *name).cloned();
            let (Some(a), Some(b)) = (pick(&names[0]), pick(&names[1])) else { return Err(TestCaseError::fail("unknown names")) };
            prop_assert!(conflict(&a.spec, &b.spec).is_some());
        }
    }

    #[test]
    fn equally_specific_criteria_that_match_one_request_are_equal(a in any_criterion(), b in any_criterion()) {
        let both = difference(&a, &request()).is_none() && difference(&b, &request()).is_none();
        if both && Specificity::of(&a) == Specificity::of(&b) {
            prop_assert!(equal(&a, &b));
        }
    }
}
