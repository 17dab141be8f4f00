use std::io::Write;

use super::*;

fn error(text: &str) -> String {
    format!("{:#}", parse(text.as_bytes(), None).unwrap_err())
}

fn request(doc: u64, idx: u64, label: &str) -> String {
    format!(
        "{{\"doc\": {{}}, \"request\": {{\"context\": \"c{doc}\", \"continuation\": \" {idx}\"}}, \
         \"idx\": {idx}, \"doc_id\": {doc}, \"label\": {label}}}\n"
    )
}

#[test]
fn plain_questions_are_read() {
    let text = "{\"context\": \"Q:\", \"choices\": [\" a\", \" b\"], \"gold\": 1}\n\n\
                {\"context\": \"R:\", \"choices\": [\" c\", \" d\", \" e\"], \"gold\": 0, \"more\": 1}\n";
    let questions = parse(text.as_bytes(), None).unwrap();
    assert_eq!(questions.len(), 2);
    assert_eq!((questions[0].id, questions[0].gold), (1, 1));
    assert_eq!(questions[1].choices[2], Choice { context: "R:".into(), continuation: " e".into() });
    assert_eq!(parse(text.as_bytes(), Some(1)).unwrap().len(), 1);
}

#[test]
fn requests_are_grouped_by_document() {
    // Out of order, and with a copy without the question, as the real files have it.
    let text =
        [request(1, 1, "1"), request(0, 0, "0"), request(1_000_000, 0, "0"), request(0, 1, "0"), request(1, 0, "1")];
    let questions = parse(text.concat().as_bytes(), None).unwrap();
    assert_eq!(questions.iter().map(|q| q.id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(questions[1].gold, 1);
    assert_eq!(questions[1].choices[0].continuation, " 0");
    assert_eq!(parse(text.concat().as_bytes(), Some(1)).unwrap().len(), 1);
}

#[test]
fn choices_may_have_contexts_of_their_own() {
    let text = request(0, 0, "0") + &request(0, 1, "0").replace("c0", "other");
    let questions = parse(text.as_bytes(), None).unwrap();
    assert_eq!(questions[0].choices[1].context, "other");
}

#[test]
fn bad_lines_are_named() {
    let good = "{\"context\": \"Q\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n";
    assert!(error(&format!("{good}{{nope\n")).starts_with("line 2: not JSON"), "{}", error(&format!("{good}{{nope\n")));
    assert!(error(&good.replace("\"gold\": 0", "\"gold\": 2")).contains("line 1: `gold` is 2, but there are only 2"));
    assert!(error(&good.replace("\"gold\": 0", "\"gold\": -1")).contains("line 1"));
    assert!(error(&good.replace("\"a\", \"b\"", "\"a\"")).contains("at least 2 choices"));
    assert!(error(&good.replace("\"b\"", "\"\"")).contains("choices[1] is empty"));
    assert!(error("{\"x\": 1}\n").contains("line 1: neither a question"));
    assert!(error("7\n").contains("line 1: neither a question"));
    assert!(error("").contains("no questions"));
    let mixed = error(&format!("{good}{}", request(0, 0, "0")));
    assert!(mixed.contains("line 2: a request among questions"), "{mixed}");
}

#[test]
fn bad_requests_are_named() {
    assert!(error(&request(0, 0, "\"abc\"")).contains("line 1: `label` is not the index"));
    assert!(error(&request(0, 0, "null")).contains("not multiple choice"));
    let twice = request(3, 0, "0").repeat(2);
    assert!(error(&twice).contains("line 2: doc_id 3 has the choice 0 twice"), "{}", error(&twice));
    assert!(error(&(request(3, 0, "0") + &request(3, 1, "1"))).contains("line 2: `label` is 1, but an earlier line"));
    assert!(error(&(request(3, 0, "0") + &request(3, 2, "0"))).contains("doc_id 3 lacks a choice"));
    assert!(error(&request(3, 0, "0")).contains("only 1 choice"));
    assert!(error(&(request(3, 0, "5") + &request(3, 1, "5"))).contains("`label` 5, but only 2"));
    assert!(error(&request(1_000_000, 0, "0")).contains("no questions"));
}

#[test]
fn gzip_is_seen_by_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests");
    let text = request(0, 0, "1") + &request(0, 1, "1");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read(&path, None).unwrap()[0].gold, 1);
    std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    assert!(format!("{:#}", read(&path, None).unwrap_err()).contains("cannot be read"));
    assert!(read(&dir.path().join("none"), None).unwrap_err().to_string().contains("cannot open"));
}
