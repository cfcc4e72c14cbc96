//! Templates of several families against Jinja2's own renderings, and templates that mean harm.

use serde::Deserialize;
use std::collections::BTreeMap;
use t2l_gguf::testing::Bytes;

use super::{ChatError, ChatTemplate, Message};

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source.into(), Some("<s>".into()), Some("</s>".into())).unwrap()
}

fn hello() -> [Message; 1] {
    [Message::user("Hello")]
}

#[derive(Deserialize)]
struct Cases {
    templates: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    text: Option<String>,
    refused: Option<String>,
}

/// `fixtures/chat/cases.json`; see `make.py` beside it.
fn cases() -> Cases {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/chat/cases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn renders_as_jinja2_does() {
    let cases = cases();
    assert!(cases.cases.len() >= 50);
    for case in &cases.cases {
        let result = template(&cases.templates[&case.template]).render(&case.messages, case.add_generation_prompt);
        match (&case.text, &case.refused, result) {
            (Some(expected), None, Ok(text)) => assert_eq!(&text, expected, "{}", case.template),
            (None, Some(expected), Err(ChatError::Refused(reason))) => {
                assert_eq!(&reason, expected, "{}", case.template);
            }
            (_, _, result) => panic!("{}: {result:?} instead of {:?}", case.template, case.text),
        }
    }
}

#[test]
fn bare_renderings_have_no_system_turn() {
    let cases = cases();
    let bare = |name: &str| self::template(&cases.templates[name]).render_bare(&hello(), true).unwrap();
    let chatml = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(bare("chatml with a default system turn"), chatml);
    assert_eq!(bare("qwen 3 without tools"), chatml);
    // A model whose beginning-of-sequence token begins every turn.
    let source = cases.templates["chatml with a default system turn"].clone();
    let template = ChatTemplate::new(source, Some("<|im_start|>".into()), None).unwrap();
    assert_eq!(template.render_bare(&hello(), true).unwrap(), chatml);
    assert_eq!(bare("mistral"), "<s> [INST] Hello [/INST]");
    assert_eq!(bare("gemma"), "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n");
    let llama = "<s><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(bare("llama 3"), llama);
    assert_eq!(bare("llama 3.1 without tools"), llama);
    assert_eq!(bare("zephyr"), "<|user|>\nHello</s>\n<|assistant|>\n");
}

#[test]
fn bare_renderings_keep_a_system_turn_of_the_conversation() {
    let template = template(&cases().templates["chatml with a default system turn"]);
    let messages = [Message::system("Be terse."), Message::user("Hello")];
    assert_eq!(template.render_bare(&messages, true).unwrap(), template.render(&messages, true).unwrap());
}

#[test]
fn a_system_turn_that_cannot_be_told_apart() {
    let template = template("{{ messages | length }} of default and {{ messages[-1].content }}");
    assert!(matches!(template.render_bare(&hello(), false), Err(ChatError::NotSeparable)));
}

#[test]
fn generation_marks_change_nothing() {
    for (open, close) in [("{% generation %}", "{% endgeneration %}"), ("{%- generation -%}", "{%- endgeneration -%}")]
    {
        let marked = format!("{{% for m in messages %}}<\n{open}\n{{{{ m.content }}}}\n{close}\n>{{% endfor %}}");
        let plain = marked.replace("endgeneration", "endif").replace("generation", "if true");
        let render = |source: &str| template(source).render(&hello(), true).unwrap();
        assert_eq!(render(&marked), render(&plain));
        assert!(render(&marked).contains("Hello"));
    }
    let mentions = "{% if add_generation_prompt %}generation{% endif %}";
    assert_eq!(template(mentions).render(&hello(), true).unwrap(), "generation");
}

#[test]
fn tokens_that_a_model_lacks_are_undefined() {
    let template = ChatTemplate::new("{{ bos_token }}|{{ eos_token is defined }}".into(), None, None).unwrap();
    assert_eq!(template.render(&hello(), false).unwrap(), "|False");
}

#[test]
fn today_is_known() {
    let text = template("{{ strftime_now('%Y-%m-%d') }}").render(&hello(), false).unwrap();
    assert_eq!(text.len(), 10);
    assert!(text.starts_with("20"));
}

#[test]
fn endless_templates_run_out_of_fuel() {
    let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a + b %}{% endfor %}{% endfor %}";
    assert!(matches!(template(nested).render(&hello(), false), Err(ChatError::Endless)));
}

#[test]
fn endless_recursion_is_an_error() {
    let source = "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}";
    assert!(matches!(template(source).render(&hello(), false), Err(ChatError::Render(_))));
    let source = format!("{}x{}", "{% if true %}".repeat(10_000), "{% endif %}".repeat(10_000));
    assert!(matches!(ChatTemplate::new(source, None, None), Err(ChatError::Syntax(_))));
    let source = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(matches!(ChatTemplate::new(source, None, None), Err(ChatError::Syntax(_))));
}

#[test]
fn endless_output_is_cut_off() {
    let source = "{% set line = 'x' * 65536 %}{% for a in range(99999) %}{{ line }}{% endfor %}";
    assert!(matches!(template(source).render(&hello(), false), Err(ChatError::TooLong)));
}

#[test]
fn broken_templates() {
    let error = ChatTemplate::new("{% for %}".into(), None, None).unwrap_err();
    assert!(matches!(error, ChatError::Syntax(_)), "{error}");
    let error = template("{{ messages.absent.deeper }}").render(&hello(), false).unwrap_err();
    assert!(matches!(error, ChatError::Render(_)), "{error}");
    let error = template("{{ raise_exception('no') }}").render(&hello(), false).unwrap_err();
    assert_eq!(error.to_string(), "the chat template rejects the conversation: no");
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = || ChatTemplate::from_folder(folder.path());
    let render = || load().unwrap().render(&hello(), false).unwrap();
    assert!(matches!(load(), Err(ChatError::NoTemplate(path)) if path == folder.path()));
    write("chat_template.json", r#"{"chat_template": "separate {{ bos_token }}"}"#);
    assert_eq!(render(), "separate ");
    let named = r#"[{"name": "tool_use", "template": "no"}, {"name": "default", "template": "named {{ bos_token }}"}]"#;
    write("tokenizer_config.json", &format!(r#"{{"bos_token": {{"content": "<s>"}}, "chat_template": {named}}}"#));
    assert_eq!(render(), "named <s>");
    write("tokenizer_config.json", r#"{"eos_token": "</s>", "chat_template": "plain {{ eos_token }}"}"#);
    assert_eq!(render(), "plain </s>");
    write("chat_template.jinja", "own file {{ eos_token }}\n");
    assert_eq!(render(), "own file </s>");
    std::fs::write(folder.path().join("chat_template.jinja"), [0xff]).unwrap();
    assert!(matches!(load(), Err(ChatError::File { path, .. }) if path.ends_with("chat_template.jinja")));
}

/// Files without end, as sparse ones: what is beyond the limit is not read.
#[test]
fn files_that_are_too_long_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let load = || ChatTemplate::from_folder(folder.path()).map(|_| ()).unwrap_err().to_string();
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = load();
        assert!(error.contains(name) && error.contains("the most that it can have"), "{error}");
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
}

#[test]
fn gguf_files() {
    let file = Bytes::front(0, 3)
        .entry_strs("tokenizer.ggml.tokens", &["a", "<s>"])
        .entry_u32("tokenizer.ggml.bos_token_id", 1)
        .entry_str("tokenizer.chat_template", "{{ bos_token }}{{ messages[0].content }}")
        .open()
        .unwrap();
    let template = ChatTemplate::from_gguf(&file).unwrap();
    assert_eq!(template.render(&hello(), false).unwrap(), "<s>Hello");
    let none = Bytes::front(0, 0).open().unwrap();
    assert!(matches!(ChatTemplate::from_gguf(&none), Err(ChatError::NoTemplate(_))));
}

/// As the tuned Gemmas' own template writes them.
#[test]
fn turns_by_the_tokens_of_a_vocabulary() {
    let template = |known: &[&str]| ChatTemplate::by_tokens(|token| known.contains(&token), Some("<bos>".into()), None);
    assert!(template(&["<start_of_turn>"]).is_none());
    let gemma = template(&["<start_of_turn>", "<end_of_turn>"]).unwrap().unwrap();
    let talk = [
        Message::system("Be brief."),
        Message::user(" What is 2+2? "),
        Message::assistant("4\n"),
        Message::user("And 3+3?"),
    ];
    let expected = "<bos><start_of_turn>user\nBe brief.\n\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>\n\
                    <start_of_turn>user\nAnd 3+3?<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(gemma.render(&talk, true).unwrap(), expected);
    let bare = "<bos><start_of_turn>user\nAnd 3+3?<end_of_turn>\n";
    assert_eq!(gemma.render_bare(&talk[3..], false).unwrap(), bare);
}
