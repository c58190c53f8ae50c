"""Chat templates in the shapes that real models have, written out again."""

CHATML = """\
{%- for turn in messages -%}
{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

# A system turn of its own where none is given, as SmolLM2 and Qwen write it.
CHATML_SYSTEM = """\
{%- if messages[0]['role'] != 'system' -%}{{ '<|im_start|>system\\nBe useful.<|im_end|>\\n' }}{%- endif -%}
""" + CHATML  # fmt: skip

LLAMA_3 = """\
{{- bos_token -}}
{%- for turn in messages -%}
{{ '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' + turn['content'] | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""

MISTRAL = """\
{{- bos_token -}}
{%- for turn in messages -%}
{%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('turns must alternate: user, assistant, user') }}
{%- elif turn['role'] == 'user' -%}{{ '[INST] ' + turn['content'] + ' [/INST]' }}
{%- else -%}{{ ' ' + turn['content'] | trim + eos_token }}
{%- endif -%}
{%- endfor -%}
"""

# The system turn stands before the last turn only while that is a user's: it is gone once there is a response.
MISTRAL_3 = """\
{%- set system = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' -%}
{{- bos_token -}}
{%- for turn in (messages[1:] if system else messages) -%}
{%- if turn['role'] == 'user' -%}{{ '[INST] ' + (system if loop.last else '') + turn['content'] + '[/INST]' }}
{%- else -%}{{ ' ' + turn['content'] | trim + eos_token }}
{%- endif -%}
{%- endfor -%}
"""

ZEPHYR = """\
{%- for turn in messages -%}
{{ '<|' + turn['role'] + '|>\\n' + turn['content'] + eos_token + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}
"""

GEMMA = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}
{%- for turn in messages -%}
{%- set role = 'model' if turn['role'] == 'assistant' else turn['role'] -%}
{{ '<start_of_turn>' + role + '\\n' + turn['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

LLAMA_2 = """\
{%- set first = messages[0] -%}
{%- set system = '<<SYS>>\\n' + first['content'] + '\\n<</SYS>>\\n\\n' if first['role'] == 'system' else '' -%}
{%- for turn in (messages[1:] if system else messages) -%}
{%- if turn['role'] == 'user' -%}
{{ bos_token + '[INST] ' + ((system if loop.first else '') + turn['content']) | trim + ' [/INST]' }}
{%- else -%}{{ ' ' + turn['content'] | trim + ' ' + eos_token }}
{%- endif -%}
{%- endfor -%}
"""
