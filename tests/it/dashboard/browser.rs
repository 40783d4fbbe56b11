//! The Dashboard in a real browser: headless Chromium, driven by the scripts of `tests/browser/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::world::{PAGES, PASSWORD, Place, WAITING, World};

/// Runs a script, which prints what failed.
async fn drive(mut world: World, script: &'static str, told: Value) {
    let run = move || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
        assert!(modules.join("node_modules").is_dir(), "tests/run installs what drives the browser");
        Command::new("node")
            .arg(root.join("tests/browser").join(script))
            .env("MODULES", &modules)
            .env("TOLD", told.to_string())
            .env("NO_PROXY", "*")
            .output()
            .unwrap_or_else(|error| panic!("node: {error}; tests/run installs it"))
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.contains("all held") {
        let error = String::from_utf8_lossy(&output.stderr);
        panic!("{script}:\n{said}{error}\nthe demo said:\n{}", world.demo.process.output());
    }
}

fn told(world: &World) -> Value {
    json!({
        "dashboard": world.demo.get("DASHBOARD_URL"),
        "decision": world.demo.get("DECISION_URL"),
        "policies": world.demo.policies(),
        "account": world.account,
        "people": world.people.iter().map(|(letter, email)| (letter.to_string(), email)).collect::<std::collections::BTreeMap<_, _>>(),
        "password": PASSWORD,
        "words": world.words,
    })
}

#[tokio::test]
async fn a_key_lives_its_life_in_a_browser() {
    let world = World::new().await;
    let told = told(&world);
    drive(world, "life.mjs", told).await;
}

#[tokio::test]
async fn every_page_is_accessible_in_light_and_dark_wide_and_narrow() {
    let mut world = World::new().await;
    world.edit().await;
    look(world, PAGES).await;
}

#[tokio::test]
async fn what_waits_for_approval_is_accessible_too() {
    look(World::waiting().await, WAITING).await;
}

async fn look(world: World, pages: &[Place]) {
    let mut told = told(&world);
    let page = |place: &Place| json!({ "name": place.name, "by": place.by.to_string(), "path": world.fill(place.path), "acts": world.acts(place) });
    told["pages"] = pages.iter().map(page).collect();
    drive(world, "pages.mjs", told).await;
}
