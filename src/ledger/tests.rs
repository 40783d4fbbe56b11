//! The life of accounts and keys, on a real store.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::key::{Cost, KeyUpdate, Kind, Mode, NewKey, Selector, State, Status, StoredSecret};
use crate::people::{NewUser, Password, PasswordHash, Role, User};
use crate::store::{Expect, Order, SledStore};
use crate::trail::{Actor, By, Event, Happened};

const COST: Cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };

fn open(folder: &Path) -> Ledger {
    Ledger::load(Arc::new(SledStore::open(&folder.join("store")).unwrap())).unwrap()
}

fn by() -> By {
    By { actor: Actor::User("usr_1".into()), address: None, request_id: Some("r1".into()), now: Timestamp::now() }
}

fn told(ledger: &Ledger, about: About<'_>) -> Vec<Happened> {
    let events = ledger.events(about, None, Order::Ascending, 1_000).unwrap();
    assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0));
    events.into_iter().map(|(_, event)| event.happened).collect()
}

#[test]
fn each_change_is_told_once_to_all_that_it_is_about_and_what_changes_nothing_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (account, keys) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    let id = &keys[1].0.id;
    let (_, _, mint) = ledger.rotate_key(id, None, SignedDuration::from_hours(1), COST, None, &by()).unwrap();
    for _ in 0..2 {
        ledger.expose(id, &mint.selector(), Exposure::Kills, "found", &by()).unwrap();
        ledger.revoke_key(id, None, Some("leaked"), &by()).unwrap();
        ledger.rename_account(&account.id, "Vexart 2", None, &by()).unwrap();
    }
    let of_key = [Happened::KeyCreated, Happened::KeyRotated, Happened::KeyCompromised, Happened::KeyRevoked].to_vec();
    assert_eq!(told(&ledger, About::Key(id)), of_key);
    let of_account = told(&ledger, About::Account(&account.id));
    assert_eq!(of_account.len(), 1 + 4 + 3 + 1);
    assert_eq!(told(&ledger, About::Everything), of_account);
    let (_, last) = ledger.events(About::Key(id), None, Order::Descending, 1).unwrap().remove(0);
    assert_eq!((last.actor, last.request_id.as_deref()), (by().actor, Some("r1")));
    assert_eq!(last.detail.get("reason").map(|reason| &**reason), Some("leaked"));
    drop(ledger);
    assert_eq!(told(&open(folder.path()), About::Account(&account.id)), of_account);
}

#[test]
fn a_closed_account_has_no_living_key_and_gets_none() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (account, _) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    // Keys are made while the account is closed: none of them may outlive it.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let new = || NewKey::named(Kind::Secret, Mode::Live, "worker");
                while ledger.create_key(&account.id, new(), COST, None, &by()).is_ok() {}
            });
        }
        while ledger.ring().len() < 40 {
            std::thread::yield_now();
        }
        assert!(ledger.close_account(&account.id, None, &by()).unwrap().account.closed_at.is_some());
    });
    let ledgers = [ledger.clone(), Ledger::load(Arc::clone(ledger.store())).unwrap()];
    for ledger in ledgers {
        for live in ledger.ring().keys() {
            assert_eq!(live.key.state, State::Revoked);
            // Whoever looks at the key alone learns how it came to its end.
            assert_eq!(told(&ledger, About::Key(&live.key.id)), [Happened::KeyCreated, Happened::AccountClosed]);
        }
    }
    let refused = ledger.create_key(&account.id, NewKey::named(Kind::Secret, Mode::Live, "w"), COST, None, &by());
    assert!(matches!(refused, Err(LedgerError::Key(KeyError::Closed))));
    assert!(matches!(
        ledger.rename_account(&account.id, "open?", None, &by()),
        Err(LedgerError::Key(KeyError::Closed))
    ));
}

#[test]
fn an_account_is_renamed_and_closed_however_busy_it_and_its_keys_are() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (account, keys) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    std::thread::scope(|scope| {
        let renaming: Vec<_> = (0..4)
            .map(|thread| {
                let (ledger, account) = (&ledger, &account);
                scope.spawn(move || {
                    (0..30).all(|round| {
                        ledger.rename_account(&account.id, &format!("{thread}-{round}"), None, &by()).is_ok()
                    })
                })
            })
            .collect();
        assert!(renaming.into_iter().all(|thread| thread.join().unwrap()), "each of them counts");
        assert_eq!(ledger.ring().account(&account.id).unwrap().version, 1 + 4 * 30);
        for (key, _) in &keys {
            scope.spawn(|| {
                let flip = |key: &mut Key| {
                    let on = key.state == State::Disabled;
                    Ok(key.switch(on)?.then(|| Event::new(Happened::KeyUpdated, &by())))
                };
                while ledger.change_key(&key.id, None, flip).is_ok() {}
            });
        }
        let is_busy = || ledger.ring().keys().iter().all(|live| live.version > 3);
        while !is_busy() {
            std::thread::yield_now();
        }
        ledger.close_account(&account.id, None, &by()).unwrap();
    });
    assert!(ledger.ring().keys().iter().all(|live| live.key.state == State::Revoked));
}

#[test]
fn a_rotated_key_has_two_secrets_until_the_overlap_ends_and_a_publishable_one_shows_its_new_token() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (_, keys) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    for (key, old) in &keys {
        let overlap = SignedDuration::from_hours(24);
        let (rotated, version, new) = ledger.rotate_key(&key.id, Some(1), overlap, COST, None, &by()).unwrap();
        assert_eq!(version, 2);
        let live = ledger.ring().find(&new.selector()).unwrap();
        let ends_at = rotated.retiring.as_ref().unwrap().ends_at;
        let status = |selector: &Selector, now| live.key.status(live.key.secret(selector).unwrap(), now);
        let before = ends_at - SignedDuration::from_nanos(1);
        assert_eq!(
            (status(&old.selector(), before), status(&old.selector(), ends_at)),
            (Status::Good, Status::Expired)
        );
        assert_eq!(status(&new.selector(), ends_at), Status::Good);
        let shown = (key.kind == Kind::Publishable).then(|| new.expose());
        assert_eq!(rotated.public_token(), shown);
        let stale = ledger.rotate_key(&key.id, Some(1), overlap, COST, None, &by());
        assert!(matches!(stale, Err(LedgerError::Stale { expected: 1, found: 2 })));
    }
}

#[test]
fn what_is_asked_for_once_is_done_once_and_remembered_for_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (account, _) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    let once = Once { name: [1; 32], asked: [2; 32] };
    let new = || NewKey::named(Kind::Secret, Mode::Live, "worker");
    let made: Vec<_> = std::thread::scope(|scope| {
        let create = || ledger.create_key(&account.id, new(), COST, Some(&once), &by());
        let all: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        all.into_iter().filter_map(|one| one.join().unwrap().ok()).collect()
    });
    assert_eq!(made.len(), 1, "eight at once make one");
    let again = ledger.create_key(&account.id, new(), COST, Some(&once), &by());
    assert!(matches!(again, Err(LedgerError::DoneBefore)));
    assert_eq!(ledger.ring().len(), 5);
    let done = ledger.done_before(&once).unwrap().unwrap();
    assert_eq!(*done.made, *made[0].0.id.to_string());
    assert!(done.is_of(&once));
    assert!(!done.is_of(&Once { asked: [3; 32], ..once.clone() }));
    assert_eq!(ledger.forget_done(Timestamp::now()).unwrap(), 0);
    assert_eq!(ledger.forget_done(Timestamp::now() + SignedDuration::from_hours(25)).unwrap(), 1);
    assert_eq!(ledger.done_before(&once).unwrap(), None);
}

#[test]
fn a_change_that_is_refused_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (account, keys) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    let before = told(&ledger, About::Everything);
    let id = &keys[1].0.id;
    let stale = ledger.change_key(id, Some(7), |_| Ok(Some(Event::new(Happened::KeyUpdated, &by()))));
    assert!(matches!(stale, Err(LedgerError::Stale { expected: 7, found: 1 })));
    assert!(ledger.rotate_key(id, None, SignedDuration::from_hours(200), COST, None, &by()).is_err());
    assert!(ledger.revoke_key(id, None, Some("\u{7}"), &by()).is_err());
    assert!(ledger.rename_account(&account.id, "", None, &by()).is_err());
    assert_eq!(told(&ledger, About::Everything), before);
    assert_eq!(ledger.ring().key(id).unwrap().version, 1);
}

#[test]
fn a_reminder_is_one_event_for_each_time_that_is_near_or_past_also_after_a_restart() {
    let (folder, day) = (tempfile::tempdir().unwrap(), SignedDuration::from_hours(24));
    let mut ledger = open(folder.path());
    let (_, keys) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    let (id, start) = (keys[1].0.id, keys[1].0.created_at.time());
    let every =
        |days: i64| KeyUpdate { rotate_every: Some(Some(day * i32::try_from(days).unwrap())), ..Default::default() };
    let change = |ledger: &Ledger, update: KeyUpdate| {
        let event = Some(Event::new(Happened::KeyUpdated, &by()));
        ledger.change_key(&id, None, |key| key.update(update.clone(), start).map(|()| event.clone())).unwrap();
    };
    let (due, overdue) = (Happened::KeyRotationDue, Happened::KeyRotationOverdue);
    change(&ledger, every(30));
    for (on_day, expected) in [(22, None), (24, Some(due)), (25, None), (31, Some(overdue)), (32, None)] {
        let before = told(&ledger, About::Key(&id)).len();
        let by = By::daemon(start + day * on_day);
        assert_eq!(ledger.remind(day * 7, &by).unwrap(), usize::from(expected.is_some()), "day {on_day}");
        assert_eq!(told(&ledger, About::Key(&id))[before..], expected.into_iter().collect::<Vec<_>>(), "day {on_day}");
        drop(ledger);
        ledger = open(folder.path());
    }
    // Another interval is another time.
    change(&ledger, every(60));
    assert_eq!(ledger.remind(day * 7, &By::daemon(start + day * 33)).unwrap(), 0);
    assert_eq!(ledger.remind(day * 7, &By::daemon(start + day * 61)).unwrap(), 1);
    assert_eq!(told(&ledger, About::Key(&id)).last(), Some(&overdue));
    ledger.revoke_key(&id, None, None, &by()).unwrap();
    assert_eq!(ledger.remind(day * 7, &By::daemon(start + day * 1_000)).unwrap(), 0, "the dead need no new secret");
}

#[test]
fn what_came_before_there_were_rows_for_it_gets_one_when_it_goes_and_a_backup_has_it() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(folder.path());
    let (account, _) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    let incoming = || {
        let secret = StoredSecret::of_foreign_digest(&"5a".repeat(32), Timestamp::now()).unwrap();
        let new = NewKey::named(Kind::Secret, Mode::Live, "moved");
        let key = Key::create(account.id, new, KeyId::random().unwrap(), secret, Timestamp::now()).unwrap();
        [Incoming::ForeignKey(key.into())]
    };
    let ceiling = crate::key::Ceiling::default();
    let first = incoming();
    let [Incoming::ForeignKey(key)] = &first else { unreachable!() };
    assert_eq!(ledger.import(&first, ceiling, &by()).unwrap(), [MovedIn::Made]);
    // As it was before there were rows.
    let mut batch = Batch::new();
    batch.delete(Table::FOREIGN_TOKENS, key.secret.foreign_name().unwrap().as_bytes(), Expect::Version(1));
    ledger.store().commit(&batch).unwrap();
    assert_eq!(ledger.import(&incoming(), ceiling, &by()).unwrap(), [MovedIn::KeptAs(key.id)]);
    for overlap in [1, 0] {
        ledger.rotate_key(&key.id, None, SignedDuration::from_hours(overlap), COST, None, &by()).unwrap();
        assert_eq!(ledger.import(&incoming(), ceiling, &by()).unwrap(), [MovedIn::KeptAs(key.id)]);
    }
    let mut backup = Vec::new();
    crate::store::backup::back_up(&**ledger.store(), Timestamp::now(), &mut backup).unwrap();
    let restored = elsewhere.path().join("store");
    crate::store::backup::restore(&mut backup.as_slice(), &restored).unwrap();
    let restored = open(elsewhere.path());
    assert_eq!(restored.import(&incoming(), ceiling, &by()).unwrap(), [MovedIn::KeptAs(key.id)]);
    assert_eq!(restored.ring().len(), 5);
}

fn known(ledger: &Ledger, email: &str, password: Option<PasswordHash>) -> User {
    let new = NewUser { email: email.into(), name: "Ada".into(), operator: false, roles: BTreeMap::new() };
    User::clone(&ledger.create_user(new, password, None, &by()).unwrap().user)
}

#[test]
fn a_password_that_was_changed_after_its_proof_signs_nobody_in_and_an_outdated_hash_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let typed = Password::typed("correct horse battery staple").unwrap();
    let cheap = "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let outdated: PasswordHash = serde_json::from_value(cheap.into()).unwrap();
    let today = PasswordHash::hash(&typed).unwrap();
    let proven = known(&ledger, "ada@example.com", Some(outdated));
    let end = Timestamp::now() + SignedDuration::from_hours(12);
    ledger.sign_in(&proven, Some(&today), end, COST, &by()).unwrap();
    let ledger = Ledger::load(Arc::clone(ledger.store())).unwrap();
    let live = ledger.people().user(&proven.id).unwrap();
    assert_eq!((live.user.password.as_ref(), live.user.tokens.len()), (Some(&today), 1));
    let refused = |proven: &User| {
        let refused = ledger.sign_in(proven, None, end, COST, &by());
        assert!(matches!(refused, Err(LedgerError::People(PeopleError::PasswordChanged))), "{refused:?}");
        assert_eq!(ledger.people().user(&proven.id).unwrap().user.tokens.len(), 1);
    };
    refused(&proven);
    let off = |user: &mut User| {
        user.disable(Timestamp::now());
        Ok(Some(Event::new(Happened::UserUpdated, &by())))
    };
    ledger.change_user(&proven.id, None, None, off).unwrap();
    refused(&live.user);
    let named = ledger.create_token(&proven.id, SIGNED_IN, None, COST, None, &by());
    assert!(matches!(named, Err(LedgerError::People(PeopleError::NameOfSignIns))));
}

#[test]
fn nobody_gets_a_role_in_an_account_that_is_closed_and_everybody_may_lose_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (account, _) = ledger.create_account("Vexart", COST, None, &by()).unwrap();
    let [member, other] = ["ada@example.com", "bob@example.com"].map(|email| known(&ledger, email, None).id);
    ledger.grant(&member, account.id, Some(Role::Viewer), None, &by()).unwrap();
    ledger.close_account(&account.id, None, &by()).unwrap();
    for (user, role) in [(member, Role::Owner), (other, Role::Viewer)] {
        let refused = ledger.grant(&user, account.id, Some(role), None, &by());
        assert!(matches!(refused, Err(LedgerError::Key(KeyError::Closed))));
    }
    let roles = BTreeMap::from([(account.id, Role::Viewer)]);
    let new = NewUser { email: "eve@example.com".into(), name: "Eve".into(), operator: false, roles };
    assert!(matches!(ledger.create_user(new, None, None, &by()), Err(LedgerError::Key(KeyError::Closed))));
    assert!(ledger.grant(&member, account.id, None, None, &by()).unwrap().user.roles.is_empty());
}
