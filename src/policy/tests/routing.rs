//! Routes are found as a second, plain reading of the schema's templates finds them.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// A schema's actions with these annotations, in place of the shipped ones.
pub(in crate::policy) fn bundle_of(annotations: &[String]) -> Bundle {
    let actions = annotations.iter().enumerate().map(|(at, annotation)| {
        let resource = if annotation.contains('{') { "Resource" } else { "Environment" };
        format!(
            "  @http({annotation:?})\n  action a{at} appliesTo {{ principal: [SecretKey], resource: [{resource}], context: Call }};\n"
        )
    });
    let shipped = shipped();
    let (_, schema) = shipped.schemas().next().unwrap();
    let (declarations, _) = schema.split_once("  // Resources\n").unwrap();
    let schema = format!("{declarations}{}}}\n", actions.collect::<String>());
    Bundle::from_files([
        (SCHEMA.to_owned(), schema),
        (POLICIES.to_owned(), "permit (principal, action, resource);".to_owned()),
    ])
}

fn segments(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(select(of), 1..5)
}

/// The last parameter names the item; the others say that nothing looks at them.
fn annotation() -> impl Strategy<Value = String> {
    (select(&["GET", "POST"][..]), segments(&["a", "b", "{}", "ab"])).prop_map(|(method, segments)| {
        let last = segments.iter().rposition(|segment| *segment == "{}");
        let named = segments.iter().enumerate().map(|(at, segment)| match *segment {
            "{}" if Some(at) == last => "/{item}".to_owned(),
            "{}" => format!("/{{_p{at}}}"),
            plain => format!("/{plain}"),
        });
        format!("{method} {}", named.collect::<String>())
    })
}

fn split(annotation: &str) -> (&str, Vec<&str>) {
    let (method, path) = annotation.split_once(' ').unwrap();
    (method, path.split('/').skip(1).collect())
}

/// The annotation that a call belongs to: of all that match, the one that is plain where the others are not, from
/// the left.
fn plain_reading<'a>(annotations: &'a [String], method: &str, path: &[&str]) -> Option<&'a String> {
    let matches = |annotation: &&String| {
        let (its_method, template) = split(annotation);
        its_method == method
            && template.len() == path.len()
            && template.iter().zip(path).all(|(its, segment)| its.starts_with('{') || its == segment)
    };
    let parameters =
        |annotation: &&String| split(annotation).1.iter().map(|segment| segment.starts_with('{')).collect::<Vec<_>>();
    annotations.iter().filter(matches).min_by_key(parameters)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_route_is_found_exactly_where_a_plain_reading_finds_it(
        annotations in proptest::collection::btree_set(annotation(), 1..10),
        calls in proptest::collection::vec((select(&["GET", "POST", "PUT"][..]), segments(&["a", "b", "ab", "c", "p0"])), 40),
    ) {
        let annotations: Vec<String> = annotations.into_iter().collect();
        let revision = Revision::build(&bundle_of(&annotations)).map_err(|rejection| {
            TestCaseError::fail(rejection.render())
        })?;
        for (method, path) in calls {
            let line = format!("/{}", path.join("/"));
            let found = revision.find_route(method, &line);
            let expected = plain_reading(&annotations, method, &path);
            let found_annotation = found.map(|found| format!("{} {}", found.route.method, found.route.template));
            prop_assert_eq!(&found_annotation, &expected.cloned(), "{} {}", method, line);
            let item = expected.and_then(|annotation| {
                split(annotation).1.iter().zip(&path).rfind(|(its, _)| its.starts_with('{')).map(|(_, segment)| *segment)
            });
            prop_assert_eq!(found.and_then(|found| found.id), item);
        }
    }
}

#[test]
fn what_is_not_the_path_of_a_template_finds_nothing() {
    let revision = Revision::build(&bundle_of(&["GET /v1/a".into(), "GET /v1/{_x}/b/{y}".into()])).unwrap();
    for path in
        ["", "/", "/v1", "/v1/", "/v1/a/", "/v1//a", "//v1/a", "/v1//b/y", "/v1/x/b/", "/v1/x/b", "/V1/a", "v1/a"]
    {
        assert!(revision.find_route("GET", path).is_none(), "{path:?}");
    }
    for method in ["", "get", "HEAD", "GET ", "POST"] {
        assert!(revision.find_route(method, "/v1/a").is_none(), "{method:?}");
    }
}

#[test]
fn an_item_may_be_named_anywhere_and_places_may_have_several_names() {
    let annotations = ["GET /v1/{id}", "GET /v1/{_other}/{item}", "GET /v1/{key}/{_what}/x"].map(str::to_owned);
    let revision = Revision::build(&bundle_of(&annotations)).unwrap();
    for (path, template, id) in [
        ("/v1/a", "/v1/{id}", "a"),
        ("/v1/a/b", "/v1/{_other}/{item}", "b"),
        ("/v1/a/b/x", "/v1/{key}/{_what}/x", "a"),
        ("/v1/a b", "/v1/{id}", "a b"),
        ("/v1/café", "/v1/{id}", "café"),
    ] {
        let found = revision.find_route("GET", path).unwrap();
        assert_eq!((&*found.route.template, found.id), (template, Some(id)));
    }
}

#[test]
fn an_annotation_that_is_no_route_is_refused_with_its_line() {
    let cases = [
        ("", "no method and path"),
        ("GET", "no method and path"),
        ("GET v1/a", "begin with a slash"),
        ("get /v1/a", "upper case"),
        ("GET  /v1/a", "begin with a slash"),
        ("GET /v1/a ", "characters"),
        ("GET /v1/a?x=1", "characters"),
        ("GET /v1/%61", "characters"),
        ("GET /v1/é", "characters"),
        ("GET /v1//a", "empty segment"),
        ("GET /v1/a/", "empty segment"),
        ("GET /v1/./a", "dot segment"),
        ("GET /v1/{}", "parameter"),
        ("GET /v1/{*rest}", "parameter"),
        ("GET /v1/{a}/{a}", "parameter"),
        ("GET /v1/{a}/{b}", "{a} would not be looked at"),
        ("GET /v1/{_a}", "no parameter that names"),
        ("GET /v1/{a}.json", "characters"),
        ("GET /v1/{{a}}", "parameter"),
        ("GET /v1/*", "characters"),
    ];
    for (annotation, words) in cases {
        let rejection = Revision::build(&bundle_of(&["GET /v1/good".into(), annotation.into()])).map(drop).unwrap_err();
        let [problem] = &*rejection.problems else { panic!("{annotation:?}: {rejection}") };
        // The annotation is two lines below the first action's.
        let place = (&*problem.file, problem.line);
        assert!(problem.message.contains(words), "{annotation:?}: {rejection}");
        assert_eq!(place, (SCHEMA, Some(32)), "{annotation:?}: {rejection}");
    }
}
