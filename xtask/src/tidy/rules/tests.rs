use super::*;

fn problems(name: &str, text: &str) -> Vec<String> {
    check_file(name, text.as_bytes(), "builder-17")
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn function(lines: usize) -> String {
    let body = "        let _ = 1;\n".repeat(lines - 2);
    format!("impl A {{\n    pub(crate) async fn f() {{\n{body}    }}\n}}\n")
}

#[test]
fn a_tidy_file_has_no_findings() {
    assert!(problems("core/src/lib.rs", &function(MAX_FUNCTION)).is_empty());
    assert!(problems("core/src/lib.rs", &"//\n".repeat(MAX_FILE)).is_empty());
}

#[test]
fn long_functions_are_found_where_they_begin() {
    let found = problems("core/src/lib.rs", &function(MAX_FUNCTION + 1));
    assert_eq!(
        found,
        ["core/src/lib.rs:2: a function of 71 lines, 70 at most: split it"]
    );
}

#[test]
fn a_declaration_ends_at_its_semicolon() {
    let text = format!(
        "trait A {{\n    fn f(&self);\n{}}}\n",
        "    // x\n".repeat(100)
    );
    assert!(problems("core/src/a.rs", &text).is_empty());
}

#[test]
fn long_files_are_found() {
    let found = problems("core/src/lib.rs", &"//\n".repeat(MAX_FILE + 1));
    assert_eq!(
        found,
        ["core/src/lib.rs:1: 501 lines, 500 at most: split it"]
    );
    assert!(problems("docs/long.md", &"x\n".repeat(MAX_FILE + 1)).is_empty());
}

#[test]
fn mod_rs_is_found() {
    assert_eq!(problems("core/src/a/mod.rs", "").len(), 1);
    assert!(problems("core/src/a/remod.rs", "").is_empty());
}

#[test]
fn places_and_names_of_one_machine_are_found() {
    assert_eq!(
        problems("README.md", "ok\nsee /root/x on builder-17\n").len(),
        2
    );
    assert!(problems("README.md", "the root of the tree, a builder\n").is_empty());
    assert!(check_file("README.md", b"a vm", "vm").is_empty());
    assert_eq!(check_file("a.bpf.o", b"\x7fELF\xff /work/x", "vm").len(), 1);
}

#[test]
fn every_crate_forbids_unsafe_code_or_is_excepted() {
    let bare = |root| check_crate(root, "[package]", "fn main() {}");
    assert!(bare("core/src/lib.rs").is_some());
    assert!(bare("agent/src/lib.rs").is_none());
    assert!(check_crate("core/src/lib.rs", "", "#![forbid(unsafe_code)]\n").is_none());
    assert!(check_crate("ebpf/abi/src/lib.rs", "unsafe_code = \"forbid\"", "").is_none());
}

#[test]
fn only_the_simulation_takes_over_the_clock() {
    let manifest = "[dependencies]\nturmoil.workspace = true\n";
    assert_eq!(check_manifest("sim/Cargo.toml", manifest), None);
    let finding = check_manifest("agent/Cargo.toml", manifest).unwrap();
    assert_eq!(finding.line, 2);
    assert_eq!(check_manifest("agent/Cargo.toml", "tokio = \"1\"\n"), None);
}
