"""How the page looks."""

import gradio as gr

CSS = """
.gradio-container { max-width: 1500px !important; margin: 0 auto; overflow: clip !important; }
.dot { display: inline-block; width: .9em; height: .9em; border-radius: 50%; margin: 0 .1em 0 .4em;
  vertical-align: -.1em; border: 1px solid #0006; }
#connection { position: sticky; top: 0; z-index: 99; margin: 0; padding: .6em 1em;
  background: #b91c1c; color: white; font-weight: 600; }
#connection:empty { display: none; }
/* “Error” would cover the painting, or where a file is dropped; the message says what is wrong. */
[data-testid="status-tracker"]:has(> .error) { display: none !important; }
/* What is painted while the marked photo is made anew would be lost. */
body:has(#photo [data-testid="status-tracker"].full:not(.hide)) #painting {
  pointer-events: none; opacity: .4; }
:focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 2px; }
"""
# Fonts of the system: others would be fetched. Gradio's own greys and blue are too pale to read.
THEME = gr.themes.Default(
    primary_hue="blue",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_text_color_subdued="*neutral_600",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)
