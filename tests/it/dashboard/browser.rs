//! The Dashboard in a real browser: headless Chromium, driven by the scripts of `tests/browser/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::world::{PAGES, PASSWORD, World};

/// Runs a script, which prints what failed.
async fn drive(script: &'static str, told: Value) {
    let run = move || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
        assert!(modules.join("node_modules").is_dir(), "tests/run installs what drives the browser");
        let output = Command::new("node")
            .arg(root.join("tests/browser").join(script))
            .env("MODULES", &modules)
            .env("TOLD", told.to_string())
            .env("NO_PROXY", "*")
            .output()
            .unwrap_or_else(|error| panic!("node: {error}; tests/run installs it"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}:\n{}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("all held"), "{script} ended early");
    };
    if let Err(failed) = tokio::task::spawn_blocking(run).await {
        std::panic::resume_unwind(failed.into_panic());
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
    drive("life.mjs", told(&world)).await;
}

#[tokio::test]
async fn every_page_is_accessible_in_light_and_dark_wide_and_narrow() {
    let world = World::new().await;
    let mut told = told(&world);
    let page = |place: &super::world::Place| json!({ "name": place.name, "by": place.by.to_string(), "path": world.fill(place.path), "acts": world.acts(place) });
    told["pages"] = PAGES.iter().map(page).collect();
    drive("pages.mjs", told).await;
}
