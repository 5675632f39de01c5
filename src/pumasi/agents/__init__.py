"""The agent of a site: it fetches orders, has its engine run them, and reports. It only ever dials out."""
