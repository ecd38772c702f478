use proptest::prelude::*;

use super::*;

fn settings() -> BTreeMap<String, String> {
    BTreeMap::from([("search_path".to_owned(), "public".to_owned())])
}

fn ask(text: &str) -> Read {
    match read(text, &settings()).unwrap() {
        Command::Read(read) => *read,
        other => panic!("{text}: {other:?}"),
    }
}

/// The strings of a text as the engine's parser reads them.
fn strings(text: &str) -> Vec<String> {
    struct Strings(Vec<String>);
    impl datafusion::sql::sqlparser::ast::Visitor for Strings {
        type Break = ();
        fn pre_visit_value(
            &mut self,
            value: &datafusion::sql::sqlparser::ast::ValueWithSpan,
        ) -> ControlFlow<()> {
            if let Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) = &value.value {
                self.0.push(s.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let parsed = Parser::parse_sql(&GenericDialect {}, text).unwrap();
    assert_eq!(parsed.len(), 1, "{text}");
    let mut found = Strings(Vec::new());
    let _ = datafusion::sql::sqlparser::ast::Visit::visit(&parsed[0], &mut found);
    found.0
}

proptest! {
    #[test]
    fn a_parameter_stays_one_string(value in "[^\0]*", quotes in r#"['\\"a;\-\n]{0,12}"#) {
        for value in [value, quotes] {
            let read = ask("SELECT $1 AS a, 'it''s' AS b");
            let text = read.with(&[Parameter::Text(value.clone())]).unwrap();
            prop_assert_eq!(strings(&text), vec![value, "it's".to_owned()]);
        }
    }

    #[test]
    fn no_text_panics(text in r#"(SELECT|SET|'|"|\$1|;|--|/\*|\(|pg_class|FROM|,|=|\$\$|E'|\\| |\n|é){0,20}"#) {
        for piece in split(&text).unwrap_or_default() {
            if let Ok(Command::Read(read)) = read(piece, &settings()) {
                let _ = read.shape(&vec![Parameter::Int(1); read.parameters.len()]);
            }
        }
    }
}

#[test]
fn statements_are_told_apart() {
    let pieces = |text| split(text).unwrap();
    assert_eq!(pieces("SELECT 1"), ["SELECT 1"]);
    assert_eq!(
        pieces(" SELECT 'a;b' ; -- no; \n;; SELECT \"é;\" ;"),
        ["SELECT 'a;b'", "-- no; \n", "SELECT \"é;\""]
            .map(str::trim)
            .iter()
            .filter(|p| !p.starts_with("--"))
            .copied()
            .collect::<Vec<_>>()
    );
    assert_eq!(
        pieces("SELECT $$;$$; SELECT 2"),
        ["SELECT $$;$$", "SELECT 2"]
    );
    assert!(pieces(" ; -- nothing\n").is_empty());
    assert!(split(&"SELECT 1;".repeat(65)).is_err());
    assert!(split("SELECT 'open").is_err());
}

#[test]
fn what_is_no_reading_is_refused() {
    for text in [
        "COPY vms TO '/tmp/out'",
        "COPY (SELECT 1) TO STDOUT",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "INSERT INTO vms VALUES (1)",
        "DELETE FROM vms",
        "DROP TABLE vms",
        "PREPARE p AS SELECT 1",
        "DO $$ BEGIN END $$",
        "WITH x AS (SELECT 1) DELETE FROM vms",
    ] {
        let refused = read(text, &settings());
        assert!(
            matches!(refused, Err(Refused::Writes(_) | Refused::Syntax(_))),
            "{text}: {refused:?}"
        );
    }
}

#[test]
fn parameters_get_the_types_of_what_they_stand_beside() {
    use ParameterType as P;
    let types = |text: &str| ask(text).parameters;
    assert_eq!(
        types("SELECT * FROM vcpus WHERE vcpu = $1 AND ready_ratio > $3 AND $2 = vm_name LIMIT $4"),
        [P::Int, P::Text, P::Float, P::Int]
    );
    assert_eq!(
        types("SELECT * FROM vms WHERE ts BETWEEN $1 AND $2 AND ready_hist = $3"),
        [P::Time, P::Time, P::Bytes]
    );
    assert_eq!(
        types("SELECT time_bucket($1, ts), $2::bigint FROM vms WHERE ts > now() - $3 GROUP BY 1"),
        [P::Interval, P::Int, P::Interval]
    );
    assert_eq!(types("SELECT $1"), [P::Text]);
    assert!(read("SELECT $999999999", &settings()).is_err());
}

#[test]
fn a_plain_text_is_not_touched() {
    let text = "SELECT  vm_name -- why\n FROM vms GROUP BY ALL";
    assert_eq!(ask(text).with(&[]).unwrap(), text);
}

/// As deep as the guard lets a tree be, on a thread as the runtime has them.
#[test]
fn a_deep_tree_does_not_overflow_the_stack() {
    let chain = format!("SELECT $1{}", " OR $1".repeat(990));
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let work = move || {
        let read = ask(&chain);
        let text = read.with(&[Parameter::Bool(true)]).unwrap();
        assert!(text.contains("OR"), "{text}");
        read.shape(&[Parameter::Bool(false)]).unwrap();
        drop(read);
    };
    thread.spawn(work).unwrap().join().unwrap();
}
