#![no_main]
//! libFuzzer's entry to [`keyward_fuzz::forward_auth`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward_fuzz::forward_auth::check(data));
