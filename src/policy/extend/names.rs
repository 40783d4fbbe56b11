//! What an endpoint's action and its items are called, as the shipped schema calls them: `createInvoice`, `Invoice`.

/// A path template in the parts that names are made of.
pub(super) struct Shape<'a> {
    /// The last plain segment before the item, or the last of all: `invoices`.
    collection: &'a str,
    /// Whether the path names an item.
    pub is_item: bool,
    /// What follows the item: `cancel` of `/v1/invoices/{id}/cancel`.
    after: Vec<&'a str>,
}

impl<'a> Shape<'a> {
    /// `None` of a path without a plain segment to take a name from.
    pub fn of(template: &'a str) -> Option<Self> {
        let segments: Vec<&str> = template.split('/').filter(|segment| !segment.is_empty()).collect();
        let is_parameter = |segment: &&str| segment.starts_with('{');
        let item = segments.iter().rposition(|segment| is_parameter(segment) && !segment.starts_with("{_"));
        let before = segments.get(..item.unwrap_or(segments.len()))?;
        let collection = before.iter().rfind(|segment| !is_parameter(segment))?;
        let after = item.and_then(|item| segments.get(item + 1..)).unwrap_or_default();
        let after = after.iter().filter(|segment| !is_parameter(segment)).copied().collect();
        Some(Self { collection, is_item: item.is_some(), after })
    }

    /// What one of the collection is called, as an entity type: `Invoice`.
    pub fn item(&self) -> String {
        pascal(&singular(self.collection))
    }

    /// What the collection is called in a heading: `Invoices`.
    pub fn heading(&self) -> String {
        pascal(self.collection)
    }

    /// What a call of this method is called: `createInvoice`, `listInvoices`, `cancelInvoice`.
    pub fn action(&self, method: &str) -> String {
        let one = self.item();
        let all = self.heading();
        let verb = match method {
            "GET" => "get",
            "PUT" => "replace",
            "PATCH" => "update",
            "DELETE" => "delete",
            other => &other.to_ascii_lowercase(),
        };
        match (self.after.as_slice(), method) {
            ([verb], "POST") => format!("{}{one}", camel(verb)),
            ([], "POST") if !self.is_item => format!("create{one}"),
            ([], "GET") if !self.is_item => format!("list{all}"),
            ([], _) if !self.is_item => format!("{verb}{all}"),
            (after, _) => format!("{verb}{one}{}", after.iter().map(|segment| pascal(segment)).collect::<String>()),
        }
    }
}

/// Whether a schema can have it as a name without quotes.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn singular(word: &str) -> String {
    let ends = ["sses", "shes", "ches", "xes", "zes"];
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        return format!("{stem}y");
    }
    if ends.iter().any(|end| word.ends_with(end)) {
        return word.strip_suffix("es").unwrap_or(word).to_owned();
    }
    let is_plural = word.ends_with('s') && !["ss", "us", "is"].iter().any(|end| word.ends_with(end));
    if is_plural { word.strip_suffix('s').unwrap_or(word).to_owned() } else { word.to_owned() }
}

/// `line-items` as `LineItems`.
fn pascal(text: &str) -> String {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric());
    let capital = |word: &str| {
        let mut characters = word.chars();
        characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect::<String>()
    };
    words.map(capital).collect()
}

/// `mark-paid` as `markPaid`.
fn camel(text: &str) -> String {
    let pascal = pascal(text);
    let mut characters = pascal.chars();
    characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_shipped_schema_has_them() {
        for (line, action, item) in [
            ("GET /v1/resources", "listResources", "Resource"),
            ("GET /v1/resources/{id}", "getResource", "Resource"),
            ("POST /v1/resources", "createResource", "Resource"),
            ("PATCH /v1/resources/{id}", "updateResource", "Resource"),
            ("DELETE /v1/resources/{id}", "deleteResource", "Resource"),
            ("POST /v1/jobs/{id}/cancel", "cancelJob", "Job"),
            ("PUT /v1/policies/{id}", "replacePolicy", "Policy"),
            ("POST /v1/invoices/{id}/mark-paid", "markPaidInvoice", "Invoice"),
            ("GET /v1/invoices/{id}/line-items", "getInvoiceLineItems", "Invoice"),
            ("GET /v1/teams/{_team}/line-items/{id}", "getLineItem", "LineItem"),
            ("POST /v1/teams/{_team}/line-items", "createLineItem", "LineItem"),
            ("DELETE /v1/boxes", "deleteBoxes", "Box"),
            ("GET /v1/status", "listStatus", "Status"),
            ("POST /v1/invoices/{id}", "postInvoice", "Invoice"),
        ] {
            let (method, template) = line.split_once(' ').unwrap();
            let shape = Shape::of(template).unwrap();
            assert_eq!((shape.action(method), shape.item()), (action.to_owned(), item.to_owned()), "{line}");
        }
        assert!(Shape::of("/").is_none() && Shape::of("/{id}").is_none());
        assert!(is_name("createInvoice") && !is_name("2fa") && !is_name("a-b") && !is_name(""));
    }
}
