//! What pages say, and offer, to whom.

use serde_json::{Value, json};

use super::visit::{Visit, text_of};
use super::world::World;

/// A page's text, with what is escaped in it.
async fn said(visit: &Visit, path: &str) -> String {
    let seen = visit.get(path).await;
    assert!(seen.status == 200 || seen.status == 400, "{path}: {}", seen.status);
    text_of(&seen.text)
}

#[tokio::test]
async fn the_history_names_whoever_ordered_a_revision() {
    let mut world = World::new().await;
    let first = world.words["revision"].clone();
    world.edit().await;
    let operator = world.visit('O').await;
    let seen = operator.post("/policies/rollback", &[("digest", &first)]).await;
    assert_eq!((seen.status, seen.location.as_str()), (303, "/policies"));
    assert!(said(&operator, "/policies").await.contains("The operator went back to it."));
    let history = said(&operator, "/policies/history").await;
    let (_, row) = history.split_once("<td data-label=\"How\">rollback</td>").unwrap();
    assert!(row.split("</tr>").next().unwrap().contains("The operator"), "{history}");
    assert!(
        said(&operator, &format!("/policies/history/{first}"))
            .await
            .contains("<dt>Gone back to by</dt><dd>The operator</dd>")
    );
}

#[tokio::test]
async fn whoever_approves_sees_what_differs() {
    let world = World::waiting().await;
    let operator = world.visit('O').await;
    let path = world.fill("/policies/history/{waiting}");
    let waiting = said(&operator, &path).await;
    for expected in [
        "waits for approval",
        "-@id(\"wider-res_8\")",
        "+@id(\"wider-res_7\")",
        "which is in force",
        ">Approve it</button>",
    ] {
        assert!(waiting.replace("- @", "-@").replace("+ @", "+@").contains(expected), "{expected}: {waiting}");
    }
    assert!(said(&operator, "/policies").await.contains(&format!("href=\"{path}\"")));
    let file = format!("/policies/file?path=policies%2Fwider.cedar&revision={}", world.words["waiting"]);
    assert!(said(&operator, &file).await.contains("res_7"));
    let seen = operator.post("/policies/approve", &[("digest", &world.words["waiting"])]).await;
    assert_eq!(seen.status, 303);
    let approved = said(&operator, &path).await;
    assert!(
        approved.contains("<dt>Approved by</dt><dd>The operator</dd>") && !approved.contains("waits for approval"),
        "{approved}"
    );
}

#[tokio::test]
async fn an_alert_offers_what_helps_and_only_to_whom_it_is_allowed() {
    let world = World::new().await;
    let (owner, developer, viewer) = (world.visit('W').await, world.visit('D').await, world.visit('V').await);
    for path in ["/accounts/{account}/live", "/accounts/{account}/live/keys"] {
        let path = world.fill(path);
        let alert = |page: &str, name: &str| {
            let alerts = page.split("aria-label=\"Alert\">").skip(1).filter_map(|rest| rest.split("</section>").next());
            alerts.into_iter().find(|alert| alert.contains(name)).unwrap_or_else(|| panic!("{path}: {page}")).to_owned()
        };
        let page = said(&owner, &path).await;
        let (ends, known) = (alert(&page, "Ends soon"), alert(&page, "The compromised one"));
        assert!(ends.contains("/edit#expires") && !ends.contains("/rotate"), "{ends}");
        assert!(known.contains("/rotate") && known.contains("name=\"overlap\" value=\"0s\""), "{known}");
        for visit in [&developer, &viewer] {
            let page = said(visit, &path).await;
            for name in ["Ends soon", "The compromised one"] {
                let alert = alert(&page, name);
                assert!(!alert.contains("/rotate") && !alert.contains("/edit"), "{alert}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_offered_in_a_closed_account_and_each_page_says_that_it_is() {
    let world = World::new().await;
    let operator = world.visit('O').await;
    let key = world.operator.done("GET", &format!("/v1/accounts/{}/keys", world.words["closed"]), Value::Null).await;
    let key = format!("/keys/{}", key["items"][0]["id"].as_str().unwrap());
    let account =
        ["/live", "/test", "/live/keys", "/live/keys/new", "/live/decisions", "/team", "/events", "/settings"];
    let pages = account.map(|page| format!("/accounts/{}{page}", world.words["closed"]));
    for path in pages.into_iter().chain([key]) {
        let page = said(&operator, &path).await;
        assert!(page.contains("This account was closed"), "{path}: {page}");
        let (_, main) = page.split_once("<main").unwrap();
        assert!(!main.contains("method=\"post\""), "{path} has a form: {main}");
        for hint in
            ["Call your API", "your API asks", ">Create a key</a", ">Create a restricted key</a", ">Create one</a"]
        {
            assert!(!main.contains(hint), "{path}: {hint}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_undone_asks_first() {
    let mut world = World::new().await;
    let owner = world.visit('W').await;
    let (key, _) = world.key("live", "Precious", json!({})).await;
    let state = async |world: &World| {
        world.operator.done("GET", &format!("/v1/keys/{key}"), Value::Null).await["state"].clone()
    };
    for order in ["compromise", "revoke"] {
        let path = format!("/keys/{key}/{order}");
        assert!(said(&owner, &format!("/keys/{key}")).await.contains(&format!("href=\"{path}\"")));
        assert!(said(&owner, &path).await.contains("This cannot be undone."));
        for name in [&[][..], &[("name", "precious")]] {
            let seen = owner.post(&path, name).await;
            assert!(
                seen.status == 400 && text_of(&seen.text).contains("That is not the key's name. Nothing was done.")
            );
        }
    }
    assert_eq!(state(&world).await, "active");
    assert_eq!(owner.post(&format!("/keys/{key}/compromise"), &[("name", "Precious")]).await.status, 303);
    assert_eq!(state(&world).await, "compromised");
    let remove = world.fill("/accounts/{account}/team/{viewer}/remove");
    assert!(said(&owner, &world.fill("/accounts/{account}/team")).await.contains(&format!("href=\"{remove}\"")));
    assert!(said(&owner, &remove).await.contains("Remove The viewer from the team"));
}

#[tokio::test]
async fn a_form_that_is_refused_says_why_in_words_for_people() {
    let world = World::new().await;
    let owner = world.visit('W').await;
    let form = world.fill("/accounts/{account}/live/keys");
    let fields = [("kind", "restricted"), ("name", "Worker")];
    let refused = async |more: (&'static str, &'static str)| {
        let seen = owner.post(&form, &[fields[0], fields[1], more]).await;
        assert_eq!(seen.status, 400, "{more:?}: {}", seen.text);
        text_of(&seen.text)
    };
    let page = refused(("scopes", "")).await;
    assert!(page.contains("A restricted key needs at least one scope.") && !page.contains("scopes: "), "{page}");
    let page = refused(("addresses", "10.0.0.0/8\nnowhere\n127.0.0.1")).await;
    assert!(page.contains("“nowhere” is no address and no network."), "{page}");
    let edit = world.fill("/keys/{key}/edit");
    let seen = owner.post(&edit, &[("name", "Worker"), ("expires", "keep"), ("addresses", "127.0.0.1, here")]).await;
    assert!(text_of(&seen.text).contains("“here” is no address and no network."), "{}", seen.text);
    let operator = world.visit('O').await;
    let page = said(&operator, "/policies/try?method=GET&path=/v1/resources&who=secret&ip=1.2.3").await;
    assert!(page.contains("“1.2.3” is no address.") && !page.contains("column"), "{page}");
}

#[tokio::test]
async fn a_member_is_added_by_their_address_and_events_name_people() {
    let world = World::new().await;
    let owner = world.visit('W').await;
    let add = world.fill("/accounts/{account}/team/new");
    let seen = owner.post(&add, &[("user", "person@example.com"), ("role", "viewer")]).await;
    let team = text_of(&owner.get(&seen.location).await.text);
    assert!(team.contains("person@example.com") && team.contains("e-mail address, or id"), "{team}");
    let events = said(&owner, &world.fill("/accounts/{account}/events")).await;
    assert!(events.contains("an operator, or a former member") && events.contains("The owner"), "{events}");
    let (_, table) = events.split_once("<tbody>").unwrap();
    assert!(!table.contains("usr_") && !table.contains("old_secret_ends_at"), "{table}");
    assert!(table.contains("old secret ends at: ") && table.contains(" UTC"), "{table}");
}

#[tokio::test]
async fn many_people_are_looked_through_page_by_page_and_found_by_name() {
    let world = World::new().await;
    for number in 0..60 {
        let new = json!({ "email": format!("p{number}@example.com"), "name": format!("Person {number}"), "roles": { world.account.as_str(): "viewer" } });
        world.operator.done("POST", "/v1/users", new).await;
    }
    let operator = world.visit('O').await;
    for path in ["/people".to_owned(), format!("/accounts/{}/team", world.account)] {
        let first = said(&operator, &path).await;
        let rows = |page: &str| page.matches("<td data-label=\"Name\"").count();
        let (_, next) = first.split_once(&format!("<a href=\"{path}?after=")).unwrap_or_else(|| panic!("{first}"));
        let next = next.split('"').next().unwrap();
        let rest = said(&operator, &format!("{path}?after={next}")).await;
        assert!(rows(&first) == 50 && rows(&rest) >= 13, "{path}: {} and {}", rows(&first), rows(&rest));
        assert!(rest.contains("Back to the first"));
        let found = said(&operator, &format!("{path}?search=PERSON+59")).await;
        assert!(rows(&found) == 1 && found.contains("p59@example.com"), "{found}");
        assert!(said(&operator, &format!("{path}?search=nobody+at+all")).await.contains("Nobody matches"));
    }
}
