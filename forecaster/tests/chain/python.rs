//! Judges that we did not write: PyPI's `jsonschema` and `standardwebhooks`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SCRIPT: &str = r#"
import json, sys
import jsonschema, standardwebhooks
given = json.load(sys.stdin)
schema = json.load(open(given["schema"]))
check = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
for request in given["requests"]:
    errors = [f"{list(e.absolute_path)}: {e.message}" for e in check.iter_errors(json.loads(request["body"]))]
    if errors:
        sys.exit("\n".join(errors))
    if request["headers"]:
        standardwebhooks.Webhook(given["secret"]).verify(request["body"], request["headers"])
"#;

/// One request: body, and headers where the signature is to be verified.
pub type Sent = (String, Vec<(String, String)>);

/// Validates bodies against the schema and verifies signatures. Without the
/// packages this is skipped, or fails where `HEADROOM_REQUIRE` names python.
pub fn judge(sent: &[Sent], secret: &str) {
    let home = std::env::var("HOME").unwrap_or_default();
    let venv = std::env::var_os("HEADROOM_VENV").map_or_else(
        || PathBuf::from(home).join(".cache/headroom/venv"),
        PathBuf::from,
    );
    let python = venv.join("bin/python");
    let there = Command::new(&python)
        .args(["-c", "import jsonschema, standardwebhooks"])
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|s| s.success()) {
        let required =
            std::env::var("HEADROOM_REQUIRE").is_ok_and(|r| r.split(',').any(|c| c == "python"));
        assert!(
            !required,
            "{} lacks jsonschema or standardwebhooks",
            python.display()
        );
        // Not println!: the test runner would keep it to itself.
        let reason = format_args!(
            "skip: {} lacks jsonschema or standardwebhooks\n",
            python.display()
        );
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), reason);
        return;
    }
    let schema = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/schema/recommendation.schema.json"
    );
    let requests: Vec<_> = sent
        .iter()
        .map(|(body, headers)| {
            let headers: serde_json::Map<_, _> = headers
                .iter()
                .map(|(n, v)| (n.clone(), v.as_str().into()))
                .collect();
            serde_json::json!({"body": body, "headers": headers})
        })
        .collect();
    let given = serde_json::json!({"schema": schema, "secret": secret, "requests": requests});
    let mut child = Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(given.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_judge_refuses_a_wrong_body() {
    let wrong = r#"{"specversion":"1.0","id":"rec_1"}"#.to_owned();
    let judged = std::panic::catch_unwind(|| {
        judge(
            &[(wrong, Vec::new())],
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        )
    });
    match judged {
        Err(_) => {}
        // Skipped: the packages are not there, which `judge` has said.
        Ok(()) => assert!(
            !PathBuf::from(std::env::var("HOME").unwrap())
                .join(".cache/headroom/venv/bin/python")
                .exists()
        ),
    }
}
