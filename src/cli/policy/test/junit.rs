//! The results as JUnit XML, which build servers show: a suite for each file.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Item, Results, told};
use crate::cli::Failure;
use crate::cli::terminal::Ink;

/// The document.
///
/// # Errors
/// None with what examples are made of; the writer has them in its signature.
pub(super) fn written(results: &Results) -> Result<String, Failure> {
    let mut report = Report::new("keyward policy test");
    let mut suites: Vec<TestSuite> = Vec::new();
    for item in &results.items {
        let case = case(item);
        match suites.last_mut().filter(|suite| suite.name.as_str() == item.file) {
            Some(suite) => drop(suite.add_test_case(case)),
            None => {
                let mut suite = TestSuite::new(item.file.as_str());
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    report.add_test_suites(suites);
    Ok(report.to_string()?)
}

fn case(item: &Item) -> TestCase {
    let status = match (&item.expected, &item.came) {
        (Some(expected), Some(came)) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(format!("expected {expected}; came {came}"));
            status.set_type("example");
            status.set_description(told::failure(item, Ink::NONE));
            status
        }
        _ => TestCaseStatus::success(),
    };
    let mut case = TestCase::new(item.name.as_str(), status);
    case.set_classname(item.file.as_str());
    case.set_time(Duration::try_from_secs_f64(item.seconds).unwrap_or_default());
    case.extra.insert("file".into(), item.file.as_str().into());
    case.extra.insert("line".into(), item.line.to_string().into());
    case
}
