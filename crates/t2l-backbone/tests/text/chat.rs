//! Conversations as transformers renders them with SmolLM2's template.

use t2l_backbone::{
    chat::{ChatTemplate, Message, Role},
    gguf::GgufFile,
    tokenizer::ModelTokenizer,
};
use t2l_testing::json;

#[test]
fn reference_chats() {
    super::with_smollm2(|area, model| {
        let file = GgufFile::open(model).unwrap();
        let (template, tokenizer) =
            (ChatTemplate::from_gguf(&file).unwrap(), ModelTokenizer::from_gguf(&file).unwrap());
        let cases = json(&area.join("chats.json"));
        let cases = cases.as_array().unwrap();
        for case in cases {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            for (key, add_generation_prompt) in [("plain", false), ("with_generation_prompt", true)] {
                let text = template.render(&messages, add_generation_prompt).unwrap();
                assert_eq!(text, case[key]["text"].as_str().unwrap());
                let ids = tokenizer.encode(&text).unwrap();
                assert_eq!(serde_json::json!(ids), case[key]["ids"], "{text:?}");
                assert_bare(&template, &messages, add_generation_prompt);
            }
        }
        cases.len()
    });
}

/// Without a system turn, ChatML is the turns and nothing else.
fn assert_bare(template: &ChatTemplate, messages: &[Message], add_generation_prompt: bool) {
    let mut expected = String::new();
    for message in messages {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        expected += &format!("<|im_start|>{role}\n{}<|im_end|>\n", message.content);
    }
    if add_generation_prompt {
        expected += "<|im_start|>assistant\n";
    }
    assert_eq!(template.render_bare(messages, add_generation_prompt).unwrap(), expected);
}
