//! Which tool is chosen for which change, and with what arguments.

use super::*;

fn tool(definition: &str) -> Tool<'_> {
    serde_json::from_str(definition).unwrap()
}

fn write() -> FileChange {
    FileChange::Write { path: "a b.txt".to_owned(), content: "it's\n$HOME".to_owned() }
}

fn replace() -> FileChange {
    FileChange::Replace { path: "a.txt".to_owned(), old: "1/2 [x]".to_owned(), new: "a&b".to_owned() }
}

const EXEC_COMMAND: &str = r#"{"name": "exec_command", "parameters": {"type": "object", "required": ["cmd"],
    "properties": {"cmd": {"type": "string"}, "workdir": {"type": "string"}}}}"#;
const SHELL: &str = r#"{"name": "container__shell", "parameters": {"type": "object", "required": ["command", "timeout_ms", "workdir"],
    "properties": {"command": {"type": "array", "items": {"type": "string"}}, "timeout_ms": {"type": "integer"},
    "workdir": {"type": "string"}}}}"#;
const APPLY_PATCH: &str = r#"{"name": "apply_patch", "parameters": {"type": "object", "required": ["input"],
    "properties": {"input": {"type": "string"}}}}"#;
const CODE_MODE: &str = r#"{"name": "exec", "parameters": {"type": "object", "required": ["input"],
    "properties": {"input": {"type": "string"}}}}"#;
const WEATHER: &str = r#"{"name": "get_weather", "parameters": {"type": "object", "required": ["city"],
    "properties": {"city": {"type": "string"}}}}"#;

#[test]
fn a_shell_takes_its_command_as_its_schema_says() {
    let command = "printf '%s\\n' 'it'\\''s\n$HOME' > 'a b.txt'";
    assert_eq!(arguments(&tool(EXEC_COMMAND), Some(&write())), Some(json!({ "cmd": command })));
    let expected = json!({"command": ["sh", "-c", command], "timeout_ms": TIMEOUT_MS, "workdir": "."});
    assert_eq!(arguments(&tool(SHELL), Some(&write())), Some(expected));
}

#[test]
fn a_shell_called_without_a_task_does_no_harm() {
    assert_eq!(arguments(&tool(EXEC_COMMAND), None), Some(json!({ "cmd": HARMLESS_COMMAND })));
}

#[test]
fn folders_are_made_and_options_are_not_taken_for_paths() {
    let change = FileChange::Write { path: "-d/e.txt".to_owned(), content: String::new() };
    assert_eq!(command(&change).unwrap(), "mkdir -p './-d' && printf '%s\\n' '' > './-d/e.txt'");
}

#[test]
fn a_replacement_is_escaped_for_sed() {
    assert_eq!(
        command(&replace()).unwrap(),
        "sed 's/1\\/2 \\[x\\]/a\\&b/g' 'a.txt' > 'a.txt.new' && mv 'a.txt.new' 'a.txt'"
    );
}

#[test]
fn patches_have_their_envelope() {
    let add = "*** Begin Patch\n*** Add File: a b.txt\n+it's\n+$HOME\n*** End Patch";
    assert_eq!(arguments(&tool(APPLY_PATCH), Some(&write())), Some(json!({ "input": add })));
    let update = "*** Begin Patch\n*** Update File: a.txt\n@@\n-1/2 [x]\n+a&b\n*** End Patch";
    assert_eq!(patch(&replace()), update);
    let append = FileChange::Append { path: "a.txt".to_owned(), line: "z".to_owned() };
    assert_eq!(patch(&append), "*** Begin Patch\n*** Update File: a.txt\n@@\n+z\n*** End Patch");
}

#[test]
fn the_order_of_tools_decides_nothing_but_the_wish_does() {
    let tools = [tool(WEATHER), tool(APPLY_PATCH), tool(EXEC_COMMAND)];
    let chosen = |patch_first| for_change(&tools, &write(), patch_first).unwrap().0.name.clone();
    assert_eq!(chosen(false), "exec_command");
    assert_eq!(chosen(true), "apply_patch");
    assert!(for_change(&tools[..1], &write(), false).is_none());
}

#[test]
fn code_mode_is_used_only_where_nothing_else_is_offered() {
    let alone = [tool(CODE_MODE)];
    let (_, arguments) = for_change(&alone, &write(), false).unwrap();
    let script = arguments["input"].as_str().unwrap();
    assert!(script.starts_with("const result = await tools.exec_command({\"cmd\":\"printf "), "{script}");
    assert!(script.ends_with("text(result.output);\n"), "{script}");
    assert!(for_change(&[tool(CODE_MODE), tool(WEATHER)], &write(), false).is_none());
}

#[test]
fn arguments_are_an_object_whatever_the_schema_leaves_open() {
    for parameters in ["{}", r#"{"description": "none"}"#, r#"{"type": "string"}"#, r#"{"enum": [1]}"#, "true", "null"]
    {
        let definition = format!(r#"{{"name": "ping", "parameters": {parameters}}}"#);
        assert_eq!(arguments(&tool(&definition), None), Some(json!({})), "{parameters}");
    }
}
