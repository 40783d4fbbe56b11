//! Tokens: exactly the texts that the form describes are read, each renders back to its bytes, and each is found
//! wherever it stands.

use keyward::key::{ForeignToken, Found, Kind, Mint, Mode, Secret, Token, UserToken, find_tokens, masked};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters in front of the checksum.
const BODY: usize = Token::LENGTH - 6;
/// The same of a person's token.
const USER_BODY: usize = UserToken::LENGTH - 6;

/// Reads the input as a token, then the same with a checksum that fits, which no mutation would hit upon, and
/// finds and hides a token that stands in the midst of the input.
pub fn check(data: &[u8]) {
    reads_as_the_form_says(data);
    for length in [BODY, USER_BODY] {
        let body = &data[..data.len().min(length)];
        reads_as_the_form_says(&[body, &checksum(body)].concat());
    }
    finds_a_token(data);
    if let Ok(text) = std::str::from_utf8(data) {
        hides_a_token(text);
    }
}

fn reads_as_the_form_says(text: &[u8]) {
    let (token, user) = (Token::parse(text), UserToken::parse(text));
    assert_eq!(token.is_ok(), is_token(text));
    assert_eq!(user.is_ok(), is_user_token(text));
    let foreign = ForeignToken::parse(text);
    let can_travel = |byte: &u8| ALPHABET.contains(byte) || b"-._~+/=".contains(byte);
    assert_eq!(foreign.is_some(), (16..=512).contains(&text.len()) && text.iter().all(can_travel));
    assert_eq!(format!("{foreign:?}").len(), if foreign.is_some() { "Some(ForeignToken(…))".len() } else { 4 });
    if let Ok(user) = user {
        let secret = std::str::from_utf8(&text[3 + 16..USER_BODY]).unwrap();
        assert_eq!(text[3..3 + 16], *user.selector.as_bytes());
        assert!(!format!("{user:?}").contains(secret), "a secret is shown");
    }
    let Ok(token) = token else { return };
    let head = format!("{}_{}_{}", token.kind.prefix(), token.mode, token.selector);
    let secret = &text[head.len()..BODY];
    let body = [head.as_bytes(), secret].concat();
    assert_eq!([&body[..], &checksum(&body)].concat(), text);
    let secret = std::str::from_utf8(secret).unwrap();
    assert!(!format!("{token:?} {:?}", Secret::of(&token)).contains(secret), "a secret is shown");
}

/// The form, once more and without the parser.
fn is_token(text: &[u8]) -> bool {
    if text.len() != Token::LENGTH {
        return false;
    }
    let (body, sum) = text.split_at(BODY);
    let is_head = ["pk", "sk", "rk"].iter().any(|kind| {
        ["live", "test"].iter().any(|mode| body.strip_prefix(format!("{kind}_{mode}_").as_bytes()).is_some())
    });
    is_head && body[8..].iter().all(|byte| ALPHABET.contains(byte)) && sum == checksum(body)
}

fn is_user_token(text: &[u8]) -> bool {
    let run = text.strip_prefix(b"kw_").filter(|_| text.len() == UserToken::LENGTH);
    let is_run = run.is_some_and(|run| run.iter().all(|byte| ALPHABET.contains(byte)));
    is_run && text[USER_BODY..] == checksum(&text[..USER_BODY])
}

fn checksum(body: &[u8]) -> [u8; 6] {
    let mut number = crc32fast::hash(body) as usize;
    let mut out = [0; 6];
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[number % 62];
        number /= 62;
    }
    out
}

fn hides_a_token(text: &str) {
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (before, after) = text.split_at(middle);
    for mint in [Mint::new(Kind::Secret, Mode::Live), Mint::for_user()].map(Result::unwrap) {
        let shown = masked(&format!("{before}{}{after}", mint.expose())).into_owned();
        let secret = &mint.expose()[24..mint.expose().len() - 6];
        assert!(!shown.contains(secret), "{shown:?}");
        assert_eq!(masked(&shown), shown, "what is masked stays as it is");
    }
}

fn finds_a_token(data: &[u8]) {
    let (before, after) = data.split_at(data.len() / 2);
    for mint in [Mint::new(Kind::Secret, Mode::Live), Mint::for_user()].map(Result::unwrap) {
        let text = [before, mint.expose().as_bytes(), after].concat();
        let found: Vec<_> = find_tokens(&text).map(|(range, _)| range).collect();
        let is_token = |start: usize| {
            let ends = [Token::LENGTH, UserToken::LENGTH].map(|length| start + length);
            ends.into_iter().find_map(|end| {
                let text = text.get(start..end)?;
                (is_token(text) || is_user_token(text)).then_some(start..end)
            })
        };
        assert_eq!(found, (0..text.len()).filter_map(is_token).collect::<Vec<_>>());
        assert!(found.contains(&(before.len()..before.len() + mint.expose().len())));
        for (_, found) in find_tokens(&text) {
            assert!(found.to_string().len() < Found::LONGEST / 3, "{found}");
        }
    }
}
