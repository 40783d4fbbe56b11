//! Paths made of templates: what may stand in the place of a parameter.
//!
//! A text that is put there must not be a segment of another route: `item` in the place of `{id}` is the path of
//! `/v1/things/item`, if there is such a route, and nothing that is asked of that path is about `{id}`. So whoever
//! needs a path of a route takes it from here.

use std::collections::HashSet;

use super::{Revision, Route};

impl Revision {
    /// A normalised path of which this revision finds this route, about this item if the route is about one; `None`
    /// where no such path is the route's.
    pub fn path_to(&self, route: &Route, item: &str) -> Option<String> {
        let path = filled(&route.template, item, &stand_in(&[self], "any"));
        let found = self.find_route(&route.method, &path)?;
        let is_about = found.id.is_none_or(|found| found == item);
        (found.route.index == route.index && is_about).then_some(path)
    }
}

/// A text like this one that is a segment of no route of these revisions: wherever it stands, it is a parameter.
pub fn stand_in(revisions: &[&Revision], like: &str) -> String {
    let routes = revisions.iter().flat_map(|revision| revision.routes());
    let taken: HashSet<&str> = routes.flat_map(|route| route.template.split('/')).collect();
    let mut name = like.to_owned();
    let mut number = 1_u64;
    while taken.contains(name.as_str()) {
        number += 1;
        name = format!("{like}-{number}");
    }
    name
}

/// A template with an item in the place of the parameter that names one, and a text in the place of the others.
pub fn filled(template: &str, item: &str, any: &str) -> String {
    let segments = template.split('/').map(|segment| match segment.strip_prefix('{') {
        None => segment,
        Some(name) if name.starts_with('_') => any,
        Some(_) => item,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// The template of the paths that are of both of these; `None` where there are none. Its parameters are named as the
/// first one names them.
pub fn common(one: &str, other: &str) -> Option<String> {
    if one.split('/').count() != other.split('/').count() {
        return None;
    }
    let segments =
        one.split('/').zip(other.split('/')).map(|(one, other)| match (is_parameter(one), is_parameter(other)) {
            (true, false) => Some(other),
            (false, false) if one != other => None,
            _ => Some(one),
        });
    segments.collect::<Option<Vec<_>>>().map(|segments| segments.join("/"))
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::policy::tests::routing::bundle_of;

    fn revision<A: ToString>(annotations: &[A]) -> Revision {
        let annotations: Vec<String> = annotations.iter().map(ToString::to_string).collect();
        Revision::build(&bundle_of(&annotations)).unwrap_or_else(|error| panic!("{}", error.render()))
    }

    #[test]
    fn what_stands_for_an_item_is_no_other_route() {
        let revision = revision(&["GET /a/{id}", "GET /a/item", "GET /a/any/{id}", "GET /a/{_x}/{id}", "GET /a"]);
        let find = |template: &str| revision.routes().find(|route| &*route.template == template).unwrap();
        for (template, item, expected) in [
            ("/a/{id}", "item", None),
            ("/a/{id}", "else", Some("/a/else")),
            ("/a/{id}", "a/b", None),
            ("/a/{id}", "", None),
            ("/a/item", "whatever", Some("/a/item")),
            ("/a/any/{id}", "x", Some("/a/any/x")),
            ("/a/{_x}/{id}", "x", Some("/a/any-2/x")),
            ("/a", "x", Some("/a")),
        ] {
            assert_eq!(revision.path_to(find(template), item).as_deref(), expected, "{template} about {item:?}");
        }
        assert_eq!(stand_in(&[&revision], "item"), "item-2");
        assert_eq!(stand_in(&[&revision], "res_1"), "res_1");
    }

    #[test]
    fn what_two_templates_have_in_common_is_a_template() {
        for (one, other, expected) in [
            ("/a/{id}", "/a/{x}", Some("/a/{id}")),
            ("/a/{id}", "/{x}/b", Some("/a/b")),
            ("/a/b", "/a/{id}", Some("/a/b")),
            ("/a/b", "/a/c", None),
            ("/a/{id}", "/a", None),
            ("/a/{id}/b", "/a/{id}", None),
        ] {
            assert_eq!(common(one, other).as_deref(), expected, "{one} and {other}");
        }
    }

    proptest! {
        #[test]
        fn every_route_has_a_path_of_its_own(
            shapes in proptest::collection::hash_set(proptest::collection::vec(select(&["item", "any", "b", "{}"][..]), 1..4), 1..12),
        ) {
            let template = |shape: &Vec<&str>| {
                let last = shape.iter().rposition(|segment| *segment == "{}");
                let name = |(at, segment): (usize, &&str)| match *segment {
                    "{}" if Some(at) == last => "{id}".to_owned(),
                    "{}" => format!("{{_{at}}}"),
                    plain => plain.to_owned(),
                };
                format!("GET /{}", shape.iter().enumerate().map(name).collect::<Vec<_>>().join("/"))
            };
            let annotations: Vec<String> = shapes.iter().map(template).collect();
            let revision = revision(&annotations);
            let item = stand_in(&[&revision], "item");
            for route in revision.routes() {
                prop_assert!(revision.path_to(route, &item).is_some(), "{route} among {annotations:?}");
            }
        }
    }
}
