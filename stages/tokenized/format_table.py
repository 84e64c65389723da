"""Every format by the name that `type:` gives it, and where it is made.

A new format is one file in `formats/`, with a function from (config, kit) to a `Format`, and one line here.
"""

FORMATS = {
    "alpaca": "tunemill.stages.tokenized.formats.alpaca:alpaca",
    "chat_template": "tunemill.stages.tokenized.formats.chat_template:chat_template",
    "completion": "tunemill.stages.tokenized.formats.completion:completion",
    "input_output": "tunemill.stages.tokenized.formats.input_output:input_output",
}
# What `type:` as a mapping makes.
USER_DEFINED = "tunemill.stages.tokenized.formats.user_defined:user_defined"
