"""The page of ``gdn-aot report``: what artifacts and records hold, in one HTML file that loads nothing.

`inputs` reads the files, `facts` says what a manifest does not say itself, `pool` has what the page's script draws,
`artifacts`, `records` and `compare` write the sections, and `page` puts them together.
"""
