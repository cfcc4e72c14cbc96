//! Tokenizer and chat template: tokenizer.json, tokenizer_config.json, and a text to render and encode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2l_backbone::chat::{ChatTemplate, Message};
use t2l_backbone::tokenizer::ModelTokenizer;

fuzz_target!(|data: &[u8]| {
    let [tokenizer, config, text] = t2l_fuzz::files(data);
    let text = String::from_utf8_lossy(text).into_owned();
    t2l_fuzz::write("tokenizer.json", tokenizer);
    t2l_fuzz::write("tokenizer_config.json", config);
    let mut rendered = text.clone();
    if let Ok(template) = ChatTemplate::from_folder(t2l_fuzz::folder()) {
        if let Ok(prompt) = template.render(&[Message::system("s"), Message::user(text.clone())], true) {
            rendered = prompt;
            // Four more renderings; one that ran out of steps has used its time.
            let _ = template.render_bare(&[Message::user(text)], false);
        }
    }
    if let Ok(tokenizer) = ModelTokenizer::from_tokenizer_json(t2l_fuzz::folder().join("tokenizer.json"))
        && let Ok(ids) = tokenizer.encode(&rendered)
    {
        let _ = tokenizer.decode(&ids, true);
        let mut stream = tokenizer.stream(false);
        for id in ids {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
    }
});
