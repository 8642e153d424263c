//! The query of `create_token`.

use percent_encoding::percent_decode;

use super::Malformed;
use crate::secret::Secret;
use crate::token_service::TokenParams;

/// Bytes of a parameter that goes into the token as it is. A token must fit into a header.
const MAX_TEXT: usize = 1024;

/// What a query asks for.
#[derive(Debug, Default)]
pub struct Query {
    /// The parameters of the token.
    pub params: TokenParams,
    /// The obsolete way to send a key.
    pub api_key: Option<Secret>,
}

/// Reads a query. Lists are comma-joined, repeated, or both; a parameter that is empty counts as absent; unknown ones are ignored.
///
/// # Errors
/// [`Malformed`] for text that is not UTF-8 or too long, for a parameter that is there twice and is no list, and for a
/// `returnSessionToken` that is neither true nor false.
pub fn parse(query: &str) -> Result<Query, Malformed> {
    let mut parsed = Query::default();
    let mut session = None;
    let params = &mut parsed.params;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        match name.as_str() {
            "scopes" => add(&mut params.scopes, &value),
            "acl" => add(&mut params.acl, &value),
            "mem" => add(&mut params.mem, &value),
            "clientId" => set(&name, &mut params.client_id, value)?,
            "domain" => set(&name, &mut params.domain, value)?,
            "data" => set(&name, &mut params.data, value)?,
            "cwid" => set(&name, &mut params.cwid, value)?,
            "cid" => set(&name, &mut params.cid, value)?,
            "returnSessionToken" => set(&name, &mut session, value)?,
            "api_key" => set(&name, &mut parsed.api_key, value)?,
            _ => {}
        }
    }
    let session: Option<String> = session;
    parsed.params.return_session_token = session.map_or(Ok(false), |text| boolean(&text))?;
    Ok(parsed)
}

fn decode(text: &str) -> Result<String, Malformed> {
    let text = text.replace('+', " ");
    let decoded = percent_decode(text.as_bytes()).decode_utf8().map_err(|_| Malformed("the query is not UTF-8".to_owned()))?;
    Ok(decoded.into_owned())
}

fn add(list: &mut Vec<String>, value: &str) {
    list.extend(value.split(',').filter(|item| !item.is_empty()).map(str::to_owned));
}

fn set<T: From<String>>(name: &str, place: &mut Option<T>, value: String) -> Result<(), Malformed> {
    if place.is_some() {
        return Err(Malformed(format!("`{name}` is there more than once")));
    }
    if value.len() > MAX_TEXT {
        return Err(Malformed(format!("`{name}` is longer than {MAX_TEXT} bytes")));
    }
    if !value.is_empty() {
        *place = Some(T::from(value));
    }
    Ok(())
}

/// Python's SDK writes `True`, others `true`.
fn boolean(text: &str) -> Result<bool, Malformed> {
    match text {
        "True" | "true" => Ok(true),
        "False" | "false" => Ok(false),
        _ => Err(Malformed("`returnSessionToken` must be true or false".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_python_sdk_is_understood() {
        let query =
            parse("clientId=c&domain=d&data=x%20y&scopes=A%2CB&acl=x%2Cy&mem=cid%3A1&cwid=w&cid=i&returnSessionToken=True").unwrap();
        let expected = TokenParams {
            client_id: Some("c".to_owned()),
            domain: Some("d".to_owned()),
            data: Some("x y".to_owned()),
            scopes: vec!["A".to_owned(), "B".to_owned()],
            acl: vec!["x".to_owned(), "y".to_owned()],
            mem: vec!["cid:1".to_owned()],
            cwid: Some("w".to_owned()),
            cid: Some("i".to_owned()),
            return_session_token: true,
        };
        assert_eq!((query.params, query.api_key), (expected, None));
    }

    #[test]
    fn lists_may_repeat_and_single_ones_not() {
        assert_eq!(parse("scopes=A&scopes=B,C&scopes=").unwrap().params.scopes, ["A", "B", "C"]);
        assert!(parse("cid=1&cid=2").is_err());
        assert!(parse("api_key=1&api_key=1").is_err());
        assert_eq!(parse("nonsense=1&nonsense=2&").unwrap().params, TokenParams::default());
    }

    #[test]
    fn a_wrong_value_is_refused() {
        for query in ["returnSessionToken=yes", "data=%ff", &format!("data={}", "x".repeat(1025))] {
            assert!(matches!(parse(query), Err(Malformed(_))), "{query:.40}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_out(text in ".{1,20}", items in proptest::collection::vec("[^,]{1,5}", 0..4)) {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let query = parse(&format!("data={}&acl={}", encode(&text), encode(&items.join(",")))).unwrap();
            prop_assert_eq!(query.params.data, Some(text));
            prop_assert_eq!(query.params.acl, items);
        }

        #[test]
        fn no_query_breaks_the_reader(query in ".{0,60}") {
            let _ = parse(&query);
        }
    }
}
